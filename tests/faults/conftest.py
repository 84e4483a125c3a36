"""Call the programs as functions, and note what each case has shown."""

import importlib
import signal
import sys
from dataclasses import dataclass

import pytest
from conftest import ROOT

from . import table

SEEN: dict[tuple[str, str], str] = {}


@dataclass
class Done:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return (self.err.splitlines() or [""])[-1]


@pytest.fixture
def seen(request):
    """Return a function that notes what was seen of a row of this module's table."""

    def note(row, text):
        SEEN[request.module.TITLE, row.case] = text

    return note


@pytest.fixture
def program(tmp_path, capsys, monkeypatch):
    """Return a function that calls a program in a folder of its own: (name, arguments) -> Done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "workflow" / "scripts"))
    handler = signal.getsignal(signal.SIGTERM)

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        capsys.readouterr()
        try:
            status = importlib.import_module(name).main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            status = error.code
        return Done(status, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


def pytest_sessionfinish(session):
    if session.config.getoption("--all-faults"):
        from .test_document import SECTIONS

        table.write(SECTIONS, SEEN)
