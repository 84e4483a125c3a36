"""Memory of reading FASTA: bounded by `max_record_residues`, and at most three times the longest record."""

import gzip
import subprocess
import sys

import pytest
from conftest import ROOT

# Of the process itself: getrusage() counts what stood in memory before it was started, too.
RUN = """
import re, sys
sys.path.insert(0, sys.argv[1])
program = __import__(sys.argv[2])
sys.argv = sys.argv[2:]
status = program.main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(status)
"""
OUTPUTS = {
    "chunk_fasta": ["--chunks", "1.fasta", "--manifest", "m.parquet", "--rejected", "r.tsv", "--counts", "c.json"],
    "translate": ["--out", "p.fasta", "--table", "t.tsv"],
}
MIB = 2**20
MEMBER = 2**24  # bytes in a member of a bomb


def run(folder, program, *options):
    """Run a program on in.fasta; return (exit status, last line on stderr, peak of the memory in bytes)."""
    given = ["--sample", "s", "in.fasta"] if program == "chunk_fasta" else ["--fasta", "in.fasta"]
    command = [sys.executable, "-c", RUN, str(ROOT / "workflow/scripts"), program, *given, *OUTPUTS[program], *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    peak = int(done.stdout.split()[-1]) * 1024 if done.stdout else 0
    return done.returncode, (done.stderr.splitlines() or [""])[-1], peak


@pytest.fixture(scope="module")
def resting(tmp_path_factory):
    """Return the peak of each program on a file of nothing much."""
    folder = tmp_path_factory.mktemp("resting")
    (folder / "in.fasta").write_text(">a\nACGTACGT\n")
    return {program: run(folder, program)[2] for program in OUTPUTS}


def bomb(folder, first, again):
    """Write a gzip FASTA of `first` and some 300 MB of `again`."""
    member = gzip.compress(again * (MEMBER // len(again)))
    (folder / "in.fasta").write_bytes(gzip.compress(first) + 18 * member)
    assert (folder / "in.fasta").stat().st_size < 10 * MIB


@pytest.mark.parametrize(
    ("first", "again", "message"),
    [
        pytest.param(b">a b\n", b"A", "line 2: record 'a b' of line 1 has more than 1,000,000 letters", id="one line"),
        pytest.param(b">a\nMKV\n>b\n", b"MK\n", "line 500004: record 'b' of line 3 has more than", id="short lines"),
        pytest.param(b">a\nMKV\n>", b"A", "line 3: a header of more than 1,000,000 characters", id="a header"),
        pytest.param(b"", b"A", "line 1: not FASTA, a record must begin with '>'", id="no header"),
        pytest.param(b">a\n", b"\0", "line 2: NUL byte", id="NUL bytes"),
    ],
)
def test_a_gzip_bomb_ends_in_one_line_and_in_little_memory(tmp_path, resting, first, again, message):
    bomb(tmp_path, first, again)
    status, last, peak = run(tmp_path, "chunk_fasta")
    assert status == 1 and last.startswith(f"chunk_fasta: error: in.fasta, {message}"), last
    assert "letters" not in message or "set max_record_residues to the length of its longest record" in last
    assert peak < resting["chunk_fasta"] + 24 * MIB
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]


def test_a_bomb_of_nucleotides_stops_at_the_limit_that_is_set(tmp_path, resting):
    bomb(tmp_path, b">chr1\n", b"ACGT")
    status, last, peak = run(tmp_path, "translate", "--max-record-residues", str(5 * MIB))
    assert status == 1 and "in.fasta, line 2: record 'chr1' of line 1 has more than 5,242,880 letters" in last
    assert peak < resting["translate"] + 24 * MIB


@pytest.mark.parametrize(
    ("line", "window"),
    [("ACGTNACGTN" * 6 + "\n", "100000"), ("acgtnacgtn" * 6 + "\n", "none"), ("C\n", "100000")],
    ids=["windows", "whole, lower case", "lines of one letter"],
)
def test_nucleotides_take_at_most_three_times_the_longest_record(tmp_path, resting, line, window):
    letters = len(line) - 1
    size = (20 if letters > 1 else 3) * MIB // letters * letters
    with (tmp_path / "in.fasta").open("w") as handle:
        for name in "ab":
            handle.write(f">{name}\n")
            handle.write(line * (size // letters))
    status, last, peak = run(tmp_path, "translate", "--window", window)
    assert status == 0, last
    assert peak - resting["translate"] < 3 * size + 12 * MIB


@pytest.mark.parametrize(("limit", "status"), [(1_500_000, 0), (1_499_999, 1)])
def test_a_protein_takes_at_most_three_times_its_record_and_the_limit_is_exact(tmp_path, resting, limit, status):
    (tmp_path / "in.fasta").write_text(">a\n" + "MKVLLA\n" * 250_000)
    found, last, peak = run(tmp_path, "chunk_fasta", "--max-record-residues", str(limit))
    assert found == status, last
    assert peak - resting["chunk_fasta"] < 3 * 1_500_000 + 12 * MIB
