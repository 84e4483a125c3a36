"""DuckDB: what its errors become."""

import argparse
import importlib
import signal
from contextlib import suppress

import pytest
from conftest import ROOT
from packed_esm.system.database import INTERRUPTED, database


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a program in whose query a signal comes; DuckDB hides what its handler raises."""
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    program = importlib.import_module("_program")
    before = signal.getsignal(signal.SIGTERM)

    def run(number):
        def work(_):
            with database(tmp_path / "none"):
                with suppress(SystemExit, KeyboardInterrupt):
                    signal.raise_signal(number)
                raise RuntimeError(INTERRUPTED)

        return program.run(argparse.ArgumentParser(prog="p"), work, [])

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_signal_during_a_query_ends_the_program_as_ever(run):
    assert run(signal.SIGINT) == 130
    assert run(signal.SIGTERM) == 143


def test_another_runtime_error_keeps_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), database(tmp_path / "none"):
        raise RuntimeError("a bug")


def test_too_little_memory_is_a_memory_error(tmp_path):
    with (
        pytest.raises(MemoryError, match="DuckDB needs more memory than"),
        database(tmp_path / "none", memory_limit="30MB", threads=1, max_temp_directory_size="0B") as connection,
    ):
        connection.execute("SELECT list(range) FROM range(100000000)").fetchall()
