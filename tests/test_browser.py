"""What a person sees: log in with the password, open a notebook, run all of it, see the engines' answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import Cli, missing, require
from tests.workbench import notebook

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1000"
)
PATIENCE = 60  # seconds for what must come; a slow machine only waits longer


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A real headless Chromium."""
    options = webdriver.ChromeOptions()
    try:
        options.binary_location = require("chromium")
    except pytest.skip.Exception:
        options.binary_location = require("google-chrome")
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    try:
        driver = webdriver.Chrome(options=options, service=Service(require("chromedriver")))
    except OSError as error:
        missing(f"a chromedriver that starts ({error})")
    yield driver
    driver.save_screenshot(str(tmp_path / "last.png"))  # what to look at when it failed
    driver.quit()


def find(browser: webdriver.Chrome, selector: str) -> Any:
    return WebDriverWait(browser, PATIENCE).until(
        seen.presence_of_element_located((By.CSS_SELECTOR, selector))
    )


def text_of(browser: webdriver.Chrome, selector: str, wanted: str) -> None:
    # An element of the page that is being left is no answer: the next look asks the page that comes.
    WebDriverWait(browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda page: any(wanted in one.text for one in page.find_elements(By.CSS_SELECTOR, selector)),
        f"{wanted!r} in {selector}",
    )


def test_log_in_open_run_all_see_the_engines(cli: Cli, browser: webdriver.Chrome, tmp_path: Path) -> None:
    folder = tmp_path / "course"
    notebook(
        folder / "old.ipynb",
        "import ipyparallel as ipp\nrc = ipp.Client()",
        "print('engines', rc.ids, 'answer', rc[:].apply_sync(lambda: 6 * 7))",
        kernel="python2",
    )
    made = cli("up", folder, "-n", "3", "--label", "course", "--json", check=True).json
    browser.get(f"{made['url']}lab/tree/old.ipynb")
    find(browser, "input[name=password]").send_keys("wrong" + Keys.ENTER)
    text_of(browser, "body", "Invalid credentials")
    find(browser, "input[name=password]").send_keys(made["password"] + Keys.ENTER)
    find(browser, ".jp-Notebook .jp-CodeCell")
    # It names a python2 kernel, and opens with the repository's Python without a question.
    text_of(browser, ".jp-KernelName, .jp-Toolbar-kernelName", "Python 3")
    text_of(browser, "#jp-main-statusbar", "Idle")
    assert not browser.find_elements(By.CSS_SELECTOR, ".jp-Dialog")

    find(browser, "[data-command='notebook:restart-run-all']").click()
    find(browser, ".jp-Dialog .jp-mod-accept").click()  # "Restart kernel?"
    text_of(browser, ".jp-OutputArea", "engines [0, 1, 2] answer [42, 42, 42]")

    find(browser, "li.lm-TabBar-tab[title='IPython Parallel']").click()
    text_of(browser, "#jp-left-stack", "Number of engines: 3")
    log = [
        entry
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and entry["source"] != "console-api"
    ]
    expected = (
        "401",  # the password that was meant to be wrong
        "Could not restore the debugger state",  # JupyterLab asked, and the restart above came before the answer
    )
    ours = [entry for entry in log if not any(words in entry["message"] for words in expected)]
    assert not ours, json.dumps(ours, indent=1)
