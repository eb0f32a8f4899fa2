"""The throughput benchmark from the command line; nothing here depends on how fast it is."""

import json
import statistics
from pathlib import Path

import jax
import pytest

from benchmarks import throughput

MODULE = "benchmarks.throughput"


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_table_and_files_agree(in_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure, cached = throughput.measure, []

    def measured(*arguments):
        cached.append(jax.config.jax_enable_compilation_cache)
        return measure(*arguments)

    monkeypatch.setattr(throughput, "measure", measured)
    output = tmp_path / "results"

    done = in_process(
        *(MODULE, "--seeds", 4, "--num-envs", 16, "--n-steps", 1024, "--batch-size", 256),
        *("--n-epochs", 4, "--steps", 2049, "--rounds", 2, "--output", output),
    )

    assert done.returncode == 0, done.stderr
    results = json.loads((output / "throughput.json").read_text(encoding="utf-8"))
    usual = {"seeds": 4, "devices": 2, "shapes": "traced", "num_envs": 16}
    usual |= {"n_steps": 2048, "batch_size": 256, "n_epochs": 4}
    assert [m["variant"] for m in results["measurements"]] == [
        usual,
        usual | {"n_steps": 1024},
        usual | {"devices": 1},
        usual | {"shapes": "static"},
    ]
    whole, _, one, static = (m["steps_per_second"] for m in results["measurements"])
    ratios = results["ratios"]
    assert list(ratios) == ["traced / static shapes", "2 devices / 1 device"]
    timed, limits = results["parts_seconds"], results["limits"]
    for spread in (whole, one, static, *ratios.values(), *timed.values(), *limits.values()):
        assert len(spread["rounds"]) == 2
        assert spread["median"] == statistics.median(spread["rounds"])
        assert 0 < min(spread["rounds"]) == spread["min"] <= spread["max"] == max(spread["rounds"])
    for ratio, below in zip(ratios.values(), (static, one), strict=True):
        expected = [a / b for a, b in zip(whole["rounds"], below["rounds"], strict=True)]
        assert ratio["rounds"] == pytest.approx(expected)
    shares = zip(limits["update_flops"]["rounds"], limits["product_flops"]["rounds"], strict=True)
    assert limits["product_share"]["rounds"] == pytest.approx([a / b for a, b in shares])
    for measurement in results["measurements"]:
        assert set(measurement["compile_seconds"]) == {"initialisation", "training"}
        assert all(seconds > 0 for seconds in measurement["compile_seconds"].values())
        assert measurement["memory_bytes"] > 0
    cold, warm = (results["compile_seconds"][f"{state} cache"] for state in ("empty", "full"))
    assert set(cold) == set(warm) == {"initialisation", "training", "evaluation", "side by side"}
    assert "updates / products of the same shapes" in done.stdout
    for shown in (
        results["versions"]["jax"],
        *(f"{speed['median']:,.0f}" for speed in (whole, one, static)),
        *(f"{ratio['median']:.2f}" for ratio in ratios.values()),
        str(output / "throughput.json"),
        str(output / "throughput.png"),
    ):
        assert shown in done.stdout
    assert (output / "throughput.png").read_bytes().startswith(b"\x89PNG")
    assert cached == [False], "compile times are to be cold"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", 1, 0), "--seeds must be an integer of at least 1, but got 0"),
        (("--rounds", 0), "--rounds must be an integer of at least 1, but got 0"),
        (("--steps", -1), "--steps must be an integer of at least 1, but got -1"),
        (("--env", "CartPol-v1"), "did you mean 'CartPole-v1'?"),
        (("--batch-size", 4096), "batch_size must be at most n_steps"),
        (("--num-envs", 3), "n_steps must be a multiple of num_envs"),
    ],
)
def test_mistakes_are_one_line(refusal, tmp_path: Path, arguments: tuple, message: str):
    assert message in refusal(MODULE, *arguments, "--output", tmp_path / "results")
    assert not (tmp_path / "results").exists()
