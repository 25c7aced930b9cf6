"""Pages in a real browser, which says what it complains about and what it asks for."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser of this machine: the one that RLREFINE_CHROMIUM names, or the first that is installed."""
    named = os.environ.get("RLREFINE_CHROMIUM")
    return named or next((found for name in CHROMIUM if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[dev]")
    executable = chromium()
    if executable is None:
        pytest.skip(f"no Chromium here: install one of {', '.join(CHROMIUM)}, or name it in RLREFINE_CHROMIUM")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page that was opened, with what it said and asked for.

    Attributes:
        page: to act on.
        said: messages of the console, errors of scripts, and what the page's own policy stopped.
        asked: addresses other than the file itself and pictures inside it.
    """

    def __init__(self, page, file: Path) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self._ask(request.url, file.as_uri()))
        page.goto(file.as_uri())

    def _ask(self, url: str, own: str) -> None:
        if url != own and not url.startswith("data:"):
            self.asked.append(url)

    def look(self, script: str):
        return self.page.evaluate(script)


@pytest.fixture
def open_page(browser):
    """Open a file at a width in pixels and a colour scheme."""
    contexts = []

    def opened(file, width=1440, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        return Opened(contexts[-1].new_page(), file)

    yield opened
    for context in contexts:
        context.close()
