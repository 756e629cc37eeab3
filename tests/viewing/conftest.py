"""Shared by the tests in a browser."""

import pytest

from support.explorer_page import start_chromium


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = start_chromium(started)
        yield browser
        browser.close()
