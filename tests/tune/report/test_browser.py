"""The page and optuna-dashboard in headless Chromium: quiet, at home, and usable."""

import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tune.evidence.finalists import train_finalists
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report.__main__ import main
from tune.search.study import run_optimization
from tune.session import train_best_config

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")

pytestmark = pytest.mark.slow

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


NO_LIMIT = 0  # Of Playwright's own 30 seconds; pytest has one.


@pytest.fixture
def folder(programs, tmp_path, pictures):
    """A study with everything in it, prepared for the dashboard."""
    programs.untrained = 5000.0
    programs.returns = lambda hp, step, seed: step / 1000 + 5000 * hp.gamma + seed
    settings = Settings(pruner_startup_trials=2, sampler="random")
    study = run_optimization(
        9, settings, output=tmp_path, study_name="<b>study</b>", programs=programs
    )
    record, folder = StudyRecord.of(study), StudyFolder(tmp_path)
    finalists = train_finalists(record, programs, folder, 400_000, 2)
    winner = finalists.winner.hyperparameters
    train_best_config(
        winner, 400_000, output=tmp_path, study=study, finalists=finalists, programs=programs
    )
    main([str(tmp_path), "--dashboard"])
    return tmp_path


@pytest.fixture
def open_page():
    """Return a function that opens an address; afterwards nothing may have gone wrong."""
    complaints, requests = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=list(QUIET), timeout=NO_LIMIT
        )

        def open_page(address, width=1280, scheme="light"):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            context.set_default_timeout(NO_LIMIT)
            page = context.new_page()
            page.on(
                "console",
                lambda said: complaints.append(said.text) if said.type == "error" else None,
            )
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(address)
            return page

        yield open_page
        browser.close()
    assert complaints == []
    away = [url for url in requests if not re.match(r"file:|data:|blob:|http://127\.0\.0\.1:", url)]
    assert away == []


def column(page, name):
    headings = page.locator("#trials-table thead th").all_text_contents()
    cells = page.locator(f"#trials-table tbody tr:visible td:nth-child({headings.index(name) + 1})")
    return cells.all_text_contents()


def test_report_in_a_browser(folder, open_page):
    address = (folder / "report.html").as_uri()
    page = open_page(address)
    assert page.locator("h1").text_content() == "<b>study</b>: improved"
    assert page.locator("#verdict").text_content().strip().startswith("Improved:")

    score = page.locator("#trials-table th button", has_text=re.compile("^score$"))
    score.click()
    ascending = [float(text) for text in column(page, "score") if text != "–"]
    assert len(ascending) == column(page, "state").count("complete")
    assert ascending == sorted(ascending)
    score.click()
    assert [float(text) for text in column(page, "score")[: len(ascending)]] == ascending[::-1]
    assert page.locator("th[aria-sort=descending]").text_content() == "score"

    states = column(page, "state")
    assert {"complete", "pruned"} == set(states)
    page.get_by_label("pruned").uncheck()
    assert set(column(page, "state")) == {"complete"}
    page.get_by_label("Filter trials").fill("baseline")
    assert column(page, "trial") == ["0 ◆ baseline"]
    assert page.locator("#count").text_content() == "1 of 9 trials"

    phone = open_page(address, width=375)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    background = "getComputedStyle(document.body).backgroundColor"
    dark = open_page(address, scheme="dark")
    assert dark.evaluate(background) != page.evaluate(background)
    text = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert dark.evaluate(text) != page.evaluate(text)


def answers(address):
    try:
        urllib.request.urlopen(address).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


@pytest.fixture
def dashboard(folder, wait_until):
    """Serve the study; yield the dashboard's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-c", "from optuna_dashboard._cli import main; main()"),
        f"sqlite:///{folder / 'study.db'}",
        *("--artifact-dir", str(folder / "artifacts"), "--port", str(port)),
        *("--host", "127.0.0.1", "--server", "wsgiref", "--quiet"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(address), process)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_dashboard_in_a_browser(dashboard, open_page):
    page = open_page(f"{dashboard}/dashboard/studies/1/note")
    page.get_by_text("Improved: the winner reaches").first.wait_for()
    page = open_page(f"{dashboard}/dashboard/studies/1/trials?numbers=0")
    page.get_by_text(re.compile("^returns")).first.wait_for()
    page = open_page(f"{dashboard}/dashboard/studies/1")
    page.get_by_text("slices.png").first.wait_for()
    page.get_by_text("model.safetensors").first.wait_for()
