"""DuckDB: what its errors become."""

import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from packed_esm.system.database import database

LONG_QUERY = """
import argparse, sys
sys.path.insert(0, "workflow/scripts")
import _program
from pathlib import Path
from packed_esm.system.database import database

def work(args):
    with database(Path("never")) as connection:
        print("begun", flush=True)
        connection.execute("SELECT count(*) FROM range(200000000) a, range(1000) b WHERE (a.range * b.range) % 7 = 3")

sys.exit(_program.run(argparse.ArgumentParser(prog="p"), work, []))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_query_ends_the_program_as_ever(number, status):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_QUERY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status and "Traceback" not in said


def test_too_little_memory_is_a_memory_error(tmp_path):
    with (
        pytest.raises(MemoryError, match="DuckDB needs more memory than"),
        database(tmp_path / "none", memory_limit="30MB", threads=1, max_temp_directory_size="0B") as connection,
    ):
        connection.execute("SELECT list(range) FROM range(100000000)").fetchall()
