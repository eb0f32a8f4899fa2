"""What the page says, without a browser; see test_browser.py for how it behaves in one."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ppo_jax.plots import inline_svg
from tune.evidence.finalists import train_finalists
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report.files import save_optimization_results
from tune.search.study import run_optimization
from tune.session import train_best_config

HOSTILE = "</script><img src=x onerror=alert(1)> & \"$\\frac{'$"


def read(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def page(programs, tmp_path, pictures):
    """The page of a small study with everything in it."""
    programs.untrained = 5000.0
    programs.returns = lambda hp, step, seed: step / 1000 + 5000 * hp.gamma + seed
    study = run_optimization(
        8, Settings(sampler="random"), output=tmp_path, study_name=HOSTILE, programs=programs
    )
    record, folder = StudyRecord.of(study), StudyFolder(tmp_path)
    finalists = train_finalists(record, programs, folder, 400_000, 2)
    train_best_config(
        finalists.winner.hyperparameters,
        400_000,
        output=tmp_path,
        study=study,
        finalists=finalists,
        programs=programs,
    )
    save_optimization_results(study, tmp_path)
    return read(tmp_path)


def test_page_has_everything_and_needs_nothing_and_hostile_names_are_text(page):
    for section in (
        *("configuration", "validation", "finalists", "study", "importance"),
        *("slices", "trials", "protocol", "cost"),
    ):
        assert f'<h2 id="{section}">' in page
        assert f'href="#{section}"' in page
    assert page.index('id="verdict"') < page.index("<h2")
    assert "Improved: the winner reaches" in page
    assert "python -m ppo_jax.train --env CartPole-v1" in page
    # Nothing but fragments and data is referred to.
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    assert not re.search(r"url\((?!#)|@import|fetch\(|https?://(?!www\.w3\.org/)", page)
    shown = page.count("of the variance (")  # Interactions.
    assert page.count("<svg") == 4 + 3 + shown + 10
    assert re.findall(r"<td class=\"text\">(tuning|validation)</td>", page) == [
        "tuning",
        "validation",
    ]
    assert "<img" not in page
    assert ": improved</title>" in page
    # In the tables of configurations, levels, finalists and trials.
    assert page.count('<span class="mark" style="color: var(--green)">★</span> winner') >= 4
    assert page.count("</script>") == 1
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; &amp; &#34;$\\frac{&#39;$" in page


def test_pictures_take_the_colours_of_the_page():
    def draw(axes):
        axes.plot([1, 2], [3, 4], label="<b> & $x$")
        axes.set_title("<i>title</i>", parse_math=False)

    svg = inline_svg(draw, 3, 2)
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "var(--dark)" in svg
    assert "#374151" not in svg
    assert "<i>" not in svg
    assert not re.search(r"<svg[^>]* width=", svg)


def test_nothing_complete(programs, tmp_path):
    programs.returns = lambda hp, step, seed: float("nan")
    save_optimization_results(run_optimization(2, output=tmp_path, programs=programs), tmp_path)
    page = read(tmp_path)
    assert "Not validated yet" in page
    assert "0 trials with a score are too few" in page
    assert 'id="interactions"' not in page
    assert "2 trials were pruned" in page


def test_fixed_and_added_parameters(programs, tmp_path):
    tables = {"gamma": {"value": 0.98}, "anneal_learning_rate": {"choices": [True, False]}}
    settings = Settings(space=SearchSpace.from_tables(tables), sampler="random")
    study = run_optimization(3, settings, output=tmp_path, programs=programs)
    save_optimization_results(study, tmp_path)
    page = read(tmp_path)
    assert re.search(r"<details>.*gamma</td><td>0.98</td></tr>.*</details>", page, re.DOTALL)
    assert '<button type="button">anneal_<wbr>learning_<wbr>rate</button>' in page
    assert '<button type="button">gamma</button>' not in page


def test_winner_that_is_the_default(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 100.0 - 1000 * abs(hp.gamma - 0.99) + seed
    study = run_optimization(3, Settings(sampler="random"), output=tmp_path, programs=programs)
    results = save_optimization_results(study, tmp_path)
    train_best_config(
        results["best_params"], 400_000, output=tmp_path, study=study, programs=programs
    )
    save_optimization_results(study, tmp_path)
    page = read(tmp_path)
    assert "No trial beat the baseline, which reaches" in page
    assert "winner − baseline" not in page
    assert "★" not in page, "it would stand beside itself"


def test_what_is_drawn_as_a_complement_is_told_of_the_hyperparameter(programs, tmp_path, pictures):
    programs.returns = lambda hp, step, seed: -((math.log10(1 - hp.gamma) + 1.7) ** 2)
    tables = {name: {"drop": True} for name in SearchSpace().keys}
    tables["gamma"] = {"low": 0.8, "high": 0.999, "log_complement": True}
    space = SearchSpace.from_tables(tables)
    settings = Settings(sampler="random", pruner="none", space=space)
    save_optimization_results(
        run_optimization(40, settings, output=tmp_path, programs=programs), tmp_path
    )
    text = read(tmp_path)
    assert "one_minus" not in text
    assert "1 − gamma" in text
    row = re.search(r'<tr><td class="text">gamma</td>.*?</tr>', text)
    good = re.search(r"(0\.\d+) … (0\.\d+)", row[0])
    assert 0.95 < float(good[1]) < 0.98 < float(good[2]) < 0.995
