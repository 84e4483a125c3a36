"""What programs say on stderr: one line for an error, nothing that commands a terminal, and no flood."""

import argparse
import importlib
import logging
import signal
import sys

import pandas as pd
import pytest
from conftest import PROGRAMS

OUTPUTS = ["--chunks", "1.fasta", "--manifest", "m.parquet", "--rejected", "r.tsv", "--counts", "c.json"]
RED = "\x1b[31m"


@pytest.fixture
def shared_program(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))
    handler = signal.getsignal(signal.SIGTERM)
    yield importlib.import_module("_program")
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(("rejects", "more"), [(19, None), (20, None), (21, 1), (5000, 4980)])
def test_the_log_has_the_first_rejects_of_a_file_and_how_many_more_there_are(tmp_path, program, rejects, more):
    (tmp_path / "a.fasta").write_text("".join(f">p{i}\nMJ\n" for i in range(rejects)) + ">good\nMK\n")
    done = program("chunk_fasta", "--sample", "s", "a.fasta", *OUTPUTS)
    lines = [line for line in done.err.splitlines() if "record 'p" in line]
    assert done.status == 0 and len(lines) == min(rejects, 20) and "line 1: record 'p0' rejected" in lines[0]
    assert (f"a.fasta: {more} more records rejected; rejected.tsv has all of them" in done.err) == (more is not None)
    assert "more records rejected" not in done.err or more
    assert len(pd.read_csv(tmp_path / "r.tsv", sep="\t")) == rejects and len(done.err) < 10_000


@pytest.mark.parametrize("options", [[], ["--on-invalid", "fail"]], ids=["in the log", "in the error"])
def test_escape_sequences_of_a_header_and_of_a_path_are_shown_and_not_sent(tmp_path, program, options):
    name = f"a{RED}\x07.fasta"
    (tmp_path / name).write_text(f">{RED}p\x9b2J\u202e\u00e9 x\nM\x1bJ\n>\u86cb\nM1\n", encoding="utf-8")
    done = program("chunk_fasta", "--sample", "s", name, *OUTPUTS, *options)
    assert done.status == (1 if options else 0)
    assert r"a\x1b[31m\x07.fasta, line 1: record " in done.err
    assert r"'\x1b[31mp\x9b2J\u202e" + "\u00e9'" in done.err and r"'\x1b' 'J'" in done.err
    assert options or "record '\u86cb' rejected" in done.err
    assert all(line.isprintable() for line in (done.out + done.err).splitlines())


def test_a_message_is_one_line_and_a_traceback_keeps_its_lines(shared_program):
    formatter = shared_program.PrintableFormatter("%(message)s")
    try:
        raise ValueError("why")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "one\ntwo %s\x1b[2J", ("caf\u00e9\r",), error)
    first, *others = formatter.format(record).split("\n")
    assert first == r"one\ntwo café\r\x1b[2J" and others[0].startswith("Traceback") and others[-1] == "ValueError: why"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory; give the job more, or smaller input"),
        (MemoryError("no room\nfor this"), "no room for this"),
        (FileNotFoundError(2, "No such file", f"a{RED}"), "[Errno 2] No such file: 'a\\x1b[31m'"),
    ],
)
def test_an_error_of_memory_or_of_the_system_has_a_text(shared_program, capsys, error, text):
    def work(args):
        raise error

    assert shared_program.run(argparse.ArgumentParser("p"), work, []) == 1
    assert capsys.readouterr().err == f"p: error: {text}\n"
