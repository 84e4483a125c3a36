"""Progress: a live bar on a terminal, lines in the log, and one bar at a time where several jobs share a terminal."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest
from conftest import ROOT

# What embed_chunk does: the log on stderr, the terminal on descriptor 3.
JOB = """
import logging, sys, time
sys.path.insert(0, sys.argv[1])
from packed_esm.system import progress
progress.SECONDS_BETWEEN_LINES = 0.2
handlers = [logging.StreamHandler(sys.stderr), progress.use_terminal(3)]
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", handlers=handlers)
logging.info("settings")
with progress.progress_bar(4000, "residues", "chunk") as bar:
    for _ in range(4):
        bar.update(1000)
        time.sleep(0.3)
logging.warning("done")
"""
LINE = r"INFO chunk: \d+ %, \d+ of 4000 residues, [\d.]+ residues/s, \S+ left"


@pytest.fixture
def terminal():
    """A pseudo-terminal of 100 columns: (its side for programs, a function that returns what they wrote)."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def written():
        os.close(theirs)
        data = b""
        while True:
            try:
                data += os.read(ours, 65536)
            except OSError:  # the other side is closed, and all is read
                os.close(ours)
                return data.decode()

    return theirs, written


def start(terminal, log):
    command = f'exec "{sys.executable}" -c "$0" "{ROOT}/workflow" 3>&2 2> "{log}"'
    return subprocess.Popen(["/bin/sh", "-c", command, JOB], stderr=terminal)


def test_a_terminal_gets_a_bar_and_the_log_lines(tmp_path, terminal):
    theirs, written = terminal
    assert start(theirs, tmp_path / "log").wait() == 0
    shown, logged = written(), (tmp_path / "log").read_text()
    assert re.search(r"100%\|█+\| 4\.00k/4\.00k \[\d\d:\d\d<00:00, .*residues/s\]", shown)
    assert "\x1b[A" not in shown
    assert len(re.findall(r"\rchunk: +\d+%", shown)) >= 3
    assert "INFO settings" in shown and "WARNING done" in shown and not re.search(LINE, shown)
    assert len(re.findall(LINE, logged)) >= 3 and "\r" not in logged and "WARNING done" in logged


def test_of_two_jobs_on_a_terminal_one_has_the_bar_and_the_other_writes_lines(tmp_path, terminal):
    theirs, written = terminal
    jobs = [start(theirs, tmp_path / f"log{i}") for i in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    shown = written()
    assert shown.count("100%|") >= 1 and re.search(LINE, shown)


def test_where_there_is_no_terminal_lines_go_there_and_to_the_log(tmp_path):
    with (tmp_path / "stderr").open("w") as stderr:
        assert start(stderr, tmp_path / "log").wait() == 0
    shown = (tmp_path / "stderr").read_text()
    assert shown == (tmp_path / "log").read_text() and re.search(LINE, shown) and "\x1b" not in shown
