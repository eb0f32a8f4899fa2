"""README and docs say what is true: links lead somewhere, commands parse, imports exist."""

import ast
import dataclasses
import importlib
import json
import re
import runpy
import shlex
import shutil
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


def commands():
    """Return every ``python -m MODULE ...`` of our own in a block, with its page."""
    found = []
    for page in PAGES:
        for language, text in blocks(page):
            if language not in ("", "sh", "bash", "console"):
                continue
            for line in text.replace("\\\n", " ").splitlines():
                line = line.split("  #")[0].strip().removeprefix("$ ")
                words = re.search(r"python -m ((?:tune|ppo_jax|benchmarks)\S*)(.*)", line)
                if words:
                    found.append((page.relative_to(ROOT), words[1], shlex.split(words[2])))
    return found


@pytest.mark.parametrize(("page", "module", "arguments"), commands())
def test_commands_parse(page, module, arguments, tmp_path, monkeypatch):
    del page  # It names the test.
    # What one command writes another one reads.
    shutil.copy(ROOT / "ppo_jax/presets/CartPole-v1.toml", tmp_path / "cartpole.toml")
    monkeypatch.chdir(tmp_path)
    try:
        found = importlib.import_module({"tune.run": "tune.options"}.get(module, module))
    except ModuleNotFoundError:
        found = None
    if found is not None and not hasattr(found, "Arguments") and not hasattr(found, "main"):
        found = None
    found = found or importlib.import_module(f"{module}.__main__")
    if hasattr(found, "Arguments"):
        command_line.parse(found.Arguments, module, arguments)


def test_commands_are_found():
    modules = {module for _, module, _ in commands()}
    assert {"tune.run", "ppo_jax.train", "ppo_jax.evaluate", "benchmarks.returns"} <= modules


def test_make_has_every_target_that_is_named():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for language, text in blocks(page):
            if not language:
                named = re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
                assert set(named) <= targets, page


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
        settings = dataclasses.replace(settings or tune.Settings(), env="CartPole-v1", **TINY)
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
            cell.source = "TRIALS, STEPS, PROOF_STEPS = 3, 10_240, 20_480"
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
