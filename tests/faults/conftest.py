"""Note what each case has shown, and hold docs/faults.md to it."""

import pytest

from . import table

SEEN: dict[tuple[str, str], str] = {}


@pytest.fixture
def seen(request):
    """Return a function that notes what was seen of a row of this module's table; it must be what the page says."""

    def note(row, text):
        title = request.module.TITLE
        SEEN[title, row.case] = text
        if not request.config.getoption("--all-faults"):
            table.check_seen(title, row, text)

    return note


def pytest_sessionfinish(session, exitstatus):
    if session.config.getoption("--all-faults") and exitstatus == pytest.ExitCode.OK:
        from .test_document import SECTIONS

        table.write(SECTIONS, SEEN)
