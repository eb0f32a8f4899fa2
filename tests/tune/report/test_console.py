import io

from rich.console import Console

from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.report.console import ConsoleProgress
from tune.search.study import run_optimization


def run(tmp_path, terminal, n_trials=6, settings=None):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=250)
    with ConsoleProgress(console) as progress:
        run_optimization(n_trials, settings, output=tmp_path, progress=progress)
    return text.getvalue()


def test_plain_lines_where_the_output_is_no_terminal(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 * min(1, hp.gamma / 0.99)
    text = run(
        tmp_path, terminal=False, settings=Settings(sampler="random", pruner_startup_trials=1)
    )
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.startswith("trial")]
    assert len(lines) == 6
    assert "defaults" in lines[0]
    assert "50k 50.0  100k 100.0  150k 150.0  200k 200.0" in lines[0]
    assert any("pruned" in line for line in lines)
    assert all("best 125.0" in line and "left" in line for line in lines)


def test_status_line_on_a_terminal(programs, tmp_path):
    assert "\x1b" in run(tmp_path, terminal=True)


def test_says_what_is_already_there_and_what_moved(programs, tmp_path):
    settings = Settings(space=SearchSpace.from_tables({"gamma": {"value": 0.9}}))
    assert "uses gamma = 0.9: the space has no 0.99" in run(tmp_path, False, 2, settings)
    assert "2 trials are already there; continuing" in run(tmp_path, False, 3, settings)


def test_diverged_seeds_are_told(programs, tmp_path):
    programs.returns = lambda hp, step, seed: float("nan") if seed == 0 else 1.0
    assert "diverged seeds: 1" in run(tmp_path, False, 1)
