"""README and docs say what is true: links lead somewhere, commands parse, imports exist."""

import ast
import dataclasses
import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ppo_jax
import tune
from ppo_jax import command_line
from ppo_jax.export.correspondence import ROWS

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Return the (language, text) of the blocks of code of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[`*]|\]\(.*?\)|\[", "", title).strip().lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


# Commands of pages, of examples, and of what commands print. A block of a shell or of no language
# holds commands alone; output is marked as text.

NOT_TESTED = {
    r"python3? -m venv |pip install |apt-get ": "they install; `make dist` does so with a wheel",
    r"\. \S+/activate|export \w+=": "they change a shell",
    r"\.venv/bin/pre-commit ": "it changes the repository",
    r"docker ": "there is no daemon where tests run",
    r"kubectl |sbatch ": "there is no cluster; tests/tune/test_examples.py runs what they start",
    r"tensorboard ": "it serves for ever; tests/ppo_jax/test_tracking.py reads what it would show",
    r"python -m rl_zoo3\.|python cleanrl/": "other projects', named for comparison",
}
"""Commands that neither run in a test nor are read by their parser -> why."""

RUN_BY = {
    r"python examples/(train|tune_study|custom_environment)\.py": (__file__, "examples_run"),
    r"\./several_gpus\.sh ": ("tests/tune/test_examples.py", "several_gpus_start_a_worker_each"),
    r"python \S+/reproduce_statistics\.py": (
        "tests/tune/test_session.py",
        "script_reproduces",
    ),
    r'python -c "import jax; print\(jax\.devices\(\)\)"': (__file__, "devices_are_shown"),
}
"""Commands that run in a test -> its file and a part of its name."""

SCRIPTS = {
    "ppo-jax-evaluate": "ppo_jax.evaluate",
    "ppo-jax-report": "tune.report",
    "ppo-jax-train": "ppo_jax.train",
    "ppo-jax-tune": "tune.run",
}


def command_lines():
    """Return every command -> the file that names it first."""
    found = {}

    def add(path, lines):
        for line in lines:
            for command in line.split(" && "):
                found.setdefault(" ".join(command.split()), str(path.relative_to(ROOT)))

    start = r"(?:python3?|pip|make|docker|kubectl|sbatch|tensorboard|apt-get|export|\./\w+\.sh) "
    inline = rf"`({start}[^`]{{1,120}}|ppo-jax-[a-z]+)`"
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # It names what there was.
            continue
        for language, text in blocks(page):
            if language in ("", "sh", "bash", "console"):
                lines = text.replace("\\\n", " ").splitlines()
                add(page, filter(None, (line.partition("  #")[0].strip() for line in lines)))
        add(page, re.findall(inline, BLOCK.sub("", page.read_text(encoding="utf-8"))))
    examples = (path for path in (ROOT / "examples").rglob("*.*") if path.suffix != ".pyc")
    for path in (*examples, ROOT / "Dockerfile"):
        text = path.read_text(encoding="utf-8").replace(" \\\n#     ", " ")
        add(path, re.findall(rf"^(?:#   )?({start}.+)$", text, re.MULTILINE))
        add(path, re.findall(inline, text))
    for package in ("ppo_jax", "tune"):
        path = ROOT / package / "__main__.py"
        add(path, re.findall(r'"(python -m [^"]+)":', path.read_text(encoding="utf-8")))
    return found


COMMANDS = command_lines()


def of_ours(command):
    """Return module and arguments of a command of this project, else None."""
    words = shlex.split(command)
    if words[0] in SCRIPTS:
        return SCRIPTS[words[0]], words[1:]
    if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in (
        *("ppo_jax", "tune", "benchmarks"),
    ):
        return words[2], words[3:]
    return None


@pytest.mark.parametrize("command", [line for line in COMMANDS if of_ours(line)])
def test_commands_are_understood(command, tmp_path, monkeypatch, capsys):
    """The command's own parser reads it; of a study and of a training, what they need to start."""
    module, words = of_ours(command)
    # What one command writes another one reads.
    shutil.copy(ROOT / "ppo_jax/presets/CartPole-v1.toml", tmp_path / "cartpole.toml")
    monkeypatch.chdir(tmp_path)
    words = ["cartpole.toml" if word == "FILE" else word for word in words]
    found = importlib.import_module({"tune.run": "tune.options"}.get(module, module))
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    if not hasattr(found, "Arguments"):
        assert not words, f"{module} takes no arguments"
        return
    if not words and module not in ("tune.run", "ppo_jax.train"):
        return  # Its name alone, in a sentence.
    if words == ["--help"]:
        with pytest.raises(SystemExit):
            command_line.parse(found.Arguments, module, words)
        assert "--" in capsys.readouterr().out
        return
    parsed = command_line.parse(found.Arguments, module, words)
    if module == "tune.run":
        parsed.plan()
    elif module == "ppo_jax.train":
        parsed.training()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make")])
def test_make_understands(command):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    dry = [*shlex.split(command), "--dry-run", "--always-make"]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" not in done.stdout, "it names a file or folder"


def test_every_command_is_tested_or_says_why_not():
    others = [line for line in COMMANDS if not (of_ours(line) or line.startswith("make"))]
    patterns = (*NOT_TESTED, *RUN_BY)
    unknown = {
        line: COMMANDS[line]
        for line in others
        if not any(re.match(pattern, line) for pattern in patterns)
    }
    assert not unknown
    unused = [p for p in patterns if not any(re.match(p, line) for line in others)]
    assert not unused
    for file, name in RUN_BY.values():
        assert re.search(rf"def test_\w*{name}", (ROOT / file).read_text(encoding="utf-8"))


def test_devices_are_shown(capsys):
    (line,) = (line for line in COMMANDS if line.startswith("python -c"))
    exec(shlex.split(line)[2], {})
    assert "Device" in capsys.readouterr().out


def test_python_imports_what_there_is():
    seen = 0
    for page in PAGES:
        for language, text in blocks(page):
            if language != "python":
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    if node.module.partition(".")[0] in ("ppo_jax", "tune"):
                        module = importlib.import_module(node.module)
                        for name in node.names:
                            assert hasattr(module, name.name), (page, name.name)
                            seen += 1
                elif isinstance(node, ast.Import):
                    for name in node.names:
                        if name.name.partition(".")[0] in ("ppo_jax", "tune"):
                            importlib.import_module(name.name)
                            seen += 1
    assert seen


def pages_with_python():
    """Return the pages that have blocks of Python."""
    return [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


NOT_RUN = {
    "observation, _ = environment.reset()": "it needs a trained policy with memory and Gymnasium",
}
"""A line of each block that is not run -> why."""


def is_run(text):
    """Return whether a block is executed by `test_python_runs`."""
    return not any(line in text for line in NOT_RUN)


def test_what_is_not_run_is_there():
    texts = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    for line in NOT_RUN:
        assert sum(line in text for text in texts) == 1, line


AGENT_SIZES = ("num_envs", "hidden_sizes", "activation")  # Each combination is a program.
TINY = {"total_steps": 4096, "eval_every": 2048, "eval_episodes": 2, "seeds": 2}
PROOF = {"finalists": 0, "validate_steps": 4096, "validate_seeds": 2}


@pytest.fixture
def small(monkeypatch):
    """Give the functions that train the sizes of a test, and one environment where it is a name."""
    train, run_study, train_best_config = ppo_jax.train, tune.run_study, tune.train_best_config

    def small_train(env=None, **options):
        env = "CartPole-v1" if isinstance(env, str) else env
        return train(env, **{**options, **TINY})

    def small_study(n_trials, settings=None, **options):
        settings = settings or tune.Settings()
        sizes = {name: {"drop": True} for name in AGENT_SIZES if name in dict(settings.space.tuned)}
        settings = dataclasses.replace(
            settings, env="CartPole-v1", space=settings.space.changed_by(sizes), **TINY
        )
        return run_study(min(n_trials, 2), settings, **{**options, **PROOF})

    def small_validation(params, num_steps=4096, **options):
        return train_best_config(params, 4096, **{**options, "seeds": 2})

    monkeypatch.setattr(ppo_jax, "train", small_train)
    monkeypatch.setattr(tune, "run_study", small_study)
    monkeypatch.setattr(tune, "train_best_config", small_validation)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Return a folder where a study of CartPole-v1 has been run."""
    folder = tmp_path_factory.mktemp("studied")
    tune.run_study(2, tune.Settings(**TINY), output=folder / "runs/CartPole-v1", **PROOF)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", pages_with_python(), ids=lambda page: page.stem)
def test_python_runs(page, studied, tmp_path, monkeypatch, small):
    """Every block of a page, in order, where a study has been run."""
    shutil.copytree(studied, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    names = {"__name__": page.stem, "observation": np.zeros(4, np.float32)}
    monkeypatch.setitem(sys.modules, page.stem, type(sys)(page.stem))  # Dataclasses look it up.
    for language, text in blocks(page):
        if language == "python" and is_run(text):
            print(text)
            exec(compile(text, str(page), "exec", dont_inherit=True), names)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("script", ["train", "tune_study", "custom_environment"])
def test_examples_run(script, tmp_path, monkeypatch, capsys, small):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="__main__")
    assert capsys.readouterr().out


NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in code) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    """Every cell, in a kernel of its own, with small sizes in the cell that names them."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = "TRIALS, STEPS, PROOF_STEPS = 2, 5_120, 10_240"
    client = nbclient.NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()


def test_migration_names_what_the_export_maps():
    """A line of the page has the names of one row of the table that the export uses."""
    text = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
    named = {ours.strip(" `"): (theirs, cleanrl) for ours, theirs, cleanrl in lines}
    rows = {row.ours: row for row in ROWS if row.ours in named}
    assert len(rows) >= 20
    for ours, row in rows.items():
        assert f"`{row.sb3}" in named[ours][0], ours
        assert f"`{row.cleanrl}`" in named[ours][1] or not row.cleanrl, ours
