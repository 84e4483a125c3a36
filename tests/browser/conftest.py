"""A browser, for as long as the tests take."""

import pytest

from .chromium import chromium, find_chromium


@pytest.fixture(scope="session")
def browser(request, tmp_path_factory):
    """A headless Chromium."""
    program = find_chromium()
    if program is None:
        end = pytest.fail if request.config.getoption("--browser") else pytest.skip
        end("Chromium is not installed: apt-get install chromium")
    with chromium(program, tmp_path_factory.mktemp("chromium") / "profile") as started:
        yield started
