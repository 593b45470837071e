"""A browser, an endpoint and a fleet. Without Chromium: skipped on a laptop, failed where CI is set."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint
from tests.serve.page.fleet import Fleet

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=BackForwardCache",  # a page that was left holds no stream open
)


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str]:
    """(the browser, its driver)."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "no Chromium, or no driver for it: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return browser, driver


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Endpoint]:
    prices = {"shapes": 2.4, "shapes-turbo": 2.4, "tiny-random": 0.6}
    with endpoint(tmp_path, catalog_with(prices)) as running:
        yield running


@pytest.fixture(scope="module")
def chrome(chromium: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for the tests of a module, as it takes seconds to start."""
    program, driver = chromium
    options = ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("chromium") / "profile"
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    chrome.set_script_timeout(20)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def browser(chrome: Chrome, served: Endpoint) -> Iterator[Chrome]:
    """Leaves before the server ends. Each is an origin of its own: nothing of an earlier page is left."""
    chrome.get_log("browser")
    try:
        yield chrome
    finally:
        first, *others = chrome.window_handles
        for tab in others:
            chrome.switch_to.window(tab)
            chrome.close()
        chrome.switch_to.window(first)
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chrome.get("about:blank")


@pytest.fixture
def fleet(served: Endpoint) -> Iterator[Fleet]:
    with Fleet(served) as running:
        yield running


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: RUSHES_SCREENSHOTS, for whoever wants to look at them."""
    folder = Path(os.environ.get("RUSHES_SCREENSHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
