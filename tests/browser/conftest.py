"""A headless Chromium, and pages made of real runs. Skipped by name where there is no Chromium."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deqcert.data import load_data
from deqcert.results import RunFolder, report
from deqcert.runners.thumbnails import with_thumbnails

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "benchmarks" / "results" / "digits-s050"
LINF = REPOSITORY / "experiments" / "results" / "comparison-mnist-small" / "runs" / "interval"
WIDTH, HEIGHT = 1280, 900


def _program(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Chromium, driven; it may reach nothing but files."""
    browser = os.environ.get("DEQCERT_CHROMIUM") or _program("chromium", "chromium-browser")
    driver = _program("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",  # a click does not wait for a page that glides
        f"--window-size={WIDTH},{HEIGHT}",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    found.set_script_timeout(60)
    yield found
    found.quit()


@pytest.fixture
def browser(chromium: WebDriver) -> WebDriver:
    """Chromium as it starts, its logs empty."""
    chromium.get("about:blank")
    chromium.set_window_size(WIDTH, HEIGHT)
    chromium.get_log("browser")
    chromium.get_log("performance")
    return chromium


@pytest.fixture(scope="session")
def digits_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs in L2, one without a guarantee, and of one in Linf."""
    folder = tmp_path_factory.mktemp("digits")
    runs = []
    for name in ("standard", "srs", "srs-paper"):
        runs.append(Path(shutil.copytree(DIGITS / name, folder / name)))
    data = load_data("digits", split="test")
    for run in runs:
        list(with_thumbnails([], data, RunFolder.open(run)))
    runs.append(_first_records(LINF, folder / "interval", 60))
    report(runs, html=True, out=folder / "report")
    return folder / "report" / "report.html"


def _first_records(run: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    shutil.copy(run / "run.json", folder)
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.fixture(scope="session")
def many_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of 3,000 images whose class names are hostile."""
    folder = tmp_path_factory.mktemp("many")
    source = DIGITS / "standard"
    content = json.loads((source / "run.json").read_text())
    names = [f"<img src=x onerror='window.pwned=1'>{k}" for k in range(10)]
    content["configuration"]["class_names"] = names
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text(json.dumps(content))
    records = [json.loads(line) for line in (source / "records.jsonl").read_text().splitlines()]
    lines = [
        json.dumps({**records[k % len(records)], "index": k}, separators=(",", ":"))
        for k in range(3000)
    ]
    (folder / "run" / "records.jsonl").write_text("\n".join(lines) + "\n")
    report(folder / "run", html=True, out=folder / "report")
    return folder / "report" / "report.html"


@pytest.fixture
def opened(browser: WebDriver) -> Callable[[Path], WebDriver]:
    """Open a page from its file, and wait until it is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    def opening(path: Path) -> WebDriver:
        browser.get(path.as_uri())
        WebDriverWait(browser, 60).until(
            lambda page: page.execute_script("return document.documentElement.dataset.ready")
        )
        return browser

    return opening


def requested(browser: WebDriver) -> list[str]:
    """Return the addresses that the page asked for since the logs were last read."""
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent: list[dict[str, Any]] = [
        e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"
    ]
    return [params["request"]["url"] for params in sent]
