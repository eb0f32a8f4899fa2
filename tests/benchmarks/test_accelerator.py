"""What a GPU launches: how it is counted, what follows from it, and limits that hold it."""

from functools import cache

import pytest

from benchmarks import hlo, prediction
from benchmarks.prediction import Costs, one_after_another, role, side_by_side

TEXT = """\
HloModule jit_training, is_scheduled=true

%body (state: (s32[], f32[64,4])) -> (s32[], f32[64,4]) {
  %state = (s32[], f32[64,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element((s32[], f32[64,4]{1,0}) %state), index=0
  %x = f32[64,4]{1,0} get-tuple-element((s32[], f32[64,4]{1,0}) %state), index=1
  %double = f32[64,4]{1,0} fusion(f32[64,4]{1,0} %x), kind=kLoop, calls=%f
  %copy.1 = f32[64,4]{1,0} copy(f32[64,4]{1,0} %double)
  %next = s32[] fusion(s32[] %i), kind=kLoop, calls=%g
  ROOT %out = (s32[], f32[64,4]{1,0}) tuple(s32[] %next, f32[64,4]{1,0} %copy.1)
}

%then (y: f32[64,4]) -> f32[64,4] {
  %y = f32[64,4]{1,0} parameter(0)
  ROOT %z = f32[64,4]{1,0} negate(f32[64,4]{1,0} %y), backend_config={"estimated_cycles":"30"}
}

%else (w: f32[64,4]) -> f32[64,4] {
  ROOT %w = f32[64,4]{1,0} parameter(0)
}

ENTRY %main (p: (s32[], f32[64,4])) -> f32[64,4] {
  %p = (s32[], f32[64,4]{1,0}) parameter(0)
  %loop = (s32[], f32[64,4]{1,0}) while((s32[], f32[64,4]{1,0}) %p), condition=%c, body=%body, metadata={op_name="jit(training)/while"}, backend_config={"known_trip_count":{"n":"8"}}
  %flag = s32[] get-tuple-element((s32[], f32[64,4]{1,0}) %loop), index=0
  %value = f32[64,4]{1,0} get-tuple-element((s32[], f32[64,4]{1,0}) %loop), index=1
  ROOT %chosen = f32[64,4]{1,0} conditional(s32[] %flag, f32[64,4]{1,0} %value, f32[64,4]{1,0} %value), branch_computations={%then, %else}
}
"""  # noqa: E501


def test_launches_chains_and_bytes_of_a_program():
    program = hlo.parse(TEXT)
    (loop,) = program.loops
    assert (program.launches, program.trips) == (0, None)
    assert (loop.name, loop.trips) == ("jit(training)/while", 8)
    assert (loop.launches, loop.path) == (3, 2)
    assert loop.bytes == 2 * (2 * 64 * 4 * 4) + 2 * 4
    ((then, other),) = program.branches
    assert (then.launches, then.cycles) == (1, 30)
    assert other.launches == 0
    assert hlo.Body.from_dict(program.to_dict()) == program


@pytest.mark.parametrize(
    ("program", "name", "expected"),
    [
        ("training", "jit(training)/vmap()/while", "iteration"),
        ("training", "jit(training)/while/body/while", "rollout block"),
        ("training", "jit(t)/while/body/cond/branch_1_fun/epochs/while", "epoch"),
        ("training", "jit(t)/while/body/vmap(epochs)/while/body/while/body/while", "minibatch"),
        ("lanes", "jit(lanes)/while/body/cond/branch_1_fun/while/body/vmap(chunk)/while", "tick"),
        ("lane_evaluation", "jit(e)/vmap(play)/while/body/while", "evaluation step"),
        ("placement", "jit(placement)/while", "loop"),
    ],
)
def test_loops_are_known_by_what_they_do(program, name, expected):
    assert role(program, name) == expected


def test_seconds_are_those_of_all_trips():
    kinds = (
        *("iteration", "rollout block", "environment step", "epoch", "block of minibatches"),
        *("minibatch", "branch", "evaluation steps", "evaluation step", "block", "chunk", "tick"),
    )

    def costs(**seconds):
        known = {kind.replace("_", " "): value for kind, value in seconds.items()}
        free = dict.fromkeys(kinds, (0.0,))
        return Costs(free | {kind: (value,) for kind, value in known.items()})

    idle = one_after_another(costs(), (2048, 256, 4))
    busy = one_after_another(costs(environment_step=1.0), (2048, 256, 4))
    assert busy - idle == pytest.approx(98 * 2048 / 16)
    busy = one_after_another(costs(minibatch=1.0), (2048, 256, 4))
    assert busy - idle == pytest.approx(98 * 4 * 2048 / 256)

    trials = [(1024, 128, 3), (4096, 512, 10)]
    idle = side_by_side(costs(), trials, 2)
    assert side_by_side(costs(environment_step=1.0), trials, 2) - idle == pytest.approx(196 * 64)
    # The small one learns beside the large one, but for each fourth block.
    ticks = 49 * (3 * 3 * 8 + 10 * 4 * 8)
    assert side_by_side(costs(tick=1.0), trials, 2) - idle == pytest.approx(ticks)
    alone = side_by_side(costs(tick=1.0), trials, 1) - side_by_side(costs(), trials, 1)
    assert alone == pytest.approx(196 * 3 * 8 + 49 * 10 * 4 * 8)


# Limits: what makes a GPU slower is seen here.

LIMITS = {
    "CartPole-v1": {"environment step": 10, "tick": 36, "minibatch": 36, "evaluation step": 10},
    "Pendulum-v1": {"environment step": 12},
    "Breakout-MinAtar": {"environment step": 28},
}


@cache
def compiled(env, lanes):
    if prediction.interpreter() is None:
        pytest.skip("the compilers are not installed; `make test-accelerator` does it")
    return prediction.compile_for("h100", env, lanes=lanes)


def launches(env, lanes):
    """Return what a loop does -> the most launches of one of its trips on an H100."""
    found = {}
    for name, program in compiled(env, lanes).items():
        for body in program.body.walk():
            if body.name.endswith("while"):
                kind = role(name, body.name)
                found[kind] = max(found.get(kind, 0), body.launches)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("env", LIMITS)
def test_launches_of_a_gpu_stay_within_limits(env):
    found = launches(env, 8) | (launches(env, 1) if env == "CartPole-v1" else {})
    for kind, limit in LIMITS[env].items():
        assert 0 < found[kind] <= limit, f"{env}, {kind}"


SECONDS = {1: (0.9, 25), 8: (None, 10), 20: (None, 6)}
"""Lanes -> the most predicted seconds of a default trial and of a study of 20 trials."""


@pytest.mark.slow
@pytest.mark.parametrize("lanes", SECONDS)
def test_predicted_seconds_of_a_gpu_stay_within_limits(lanes):
    costs = Costs.of(compiled("CartPole-v1", lanes))
    for predicted, limit in zip(prediction.predict(costs, lanes), SECONDS[lanes], strict=True):
        assert predicted is None or 0 < predicted <= limit
