"""FASTA files as people have them: each record is kept, changed as asked or listed, or the file is refused by name."""

import gzip
import shlex

import pandas as pd
import pytest
from conftest import random_sequence
from packed_esm.sequences.alphabet import refget_digest, residue_count
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.manifest import read_manifest
from packed_esm.system.files import read_json

from .table import Row, held_by

TITLE = "Input: FASTA"
OUTPUTS = "--chunks 1.fasta 2.fasta --manifest m.parquet --rejected r.tsv --counts c.json"
LONG = "x" * 10_000
MANY = 100_000


def stops(case, content, words, name="s.fasta", options=""):
    """Return a row: the file is refused with these words, and nothing is written."""
    return Row(
        case, "stops in one line with file, line and remedy; nothing is written", (name, content, options), words
    )


def kept(case, content, *records, name="s.fasta", options=""):
    """Return a row: the records are these, (id, sequence) each."""
    expected = "every record accepted" if records else "the run goes on without a record, and a warning says so"
    return Row(case, expected, (name, content, options, [(r[0], "accepted", r[1]) for r in records]))


def listed(case, content, *records, words="", name="s.fasta", options=""):
    """Return a row: the records are these, (id, status, sequence or None) each; what was not accepted is listed."""
    statuses = ", ".join(dict.fromkeys(status for _, status, _ in records))
    return Row(case, f"the run goes on; the records: {statuses}", (name, content, options, list(records)), words)


def compressed(text):
    return gzip.compress(text.encode(), mtime=0)


def many_records():
    import numpy as np

    rng = np.random.default_rng(0)
    letters = rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=(MANY, 20))
    return "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(letters))


WHOLE = compressed("".join(f">p{i}\n{'MKV' * (i % 40 + 1)}\n" for i in range(400)))

ROWS = [
    stops("not FASTA", "MKVLLA\n>a\nMK\n", "s.fasta, line 1: not FASTA, a record must begin with '>'"),
    stops("a table in place of FASTA", "id\tseq\na\tMKV\n", "line 1: not FASTA"),
    kept("an empty file", ""),
    kept("blank lines only", "\n\n"),
    stops("a missing file", None, "s.fasta: No such file or directory; give the path of a protein FASTA file"),
    stops("a directory", "directory", "s.fasta: Is a directory; give the path"),
    stops("gzip cut short", WHOLE[: len(WHOLE) // 2], "broken gzip stream", name="s.fasta.gz"),
    stops("gzip cut before its checksum", WHOLE[:-4], "broken gzip stream", name="s.fasta.gz"),
    stops("gzip with a flipped bit", WHOLE[:99] + bytes([WHOLE[99] ^ 4]) + WHOLE[100:], "gzip", name="s.fasta.gz"),
    kept("gzip under a plain name", compressed(">a\nMK\n"), ("a", "MK")),
    kept("plain under a name of gzip", ">a\nMK\n", ("a", "MK"), name="s.fasta.gz"),
    kept("gzip of two members (bgzip)", compressed(">a\nMK\n") + compressed(">b\nMV\n"), ("a", "MK"), ("b", "MV")),
    stops("bzip2, xz or zip", b"BZh91AY&SY\xcf\xa7\x8e\x00", "unpack it if it is compressed, but not with gzip"),
    stops("UTF-16", ">a\nMK\n".encode("utf-16"), "not UTF-8 text"),
    stops("Latin-1 in a header", b">a M\xfcller\nMK\n", "not UTF-8 text"),
    stops("a NUL byte", ">a\nMK\0V\n", "s.fasta, line 2: NUL byte; the file is damaged, fetch it again"),
    kept("CRLF", ">a\r\nMK\r\nV\r\n>b\r\nG\r\n", ("a", "MKV"), ("b", "G")),
    kept("CR only", ">a\rMK\rV\r>b\rG\r", ("a", "MKV"), ("b", "G")),
    kept("a byte order mark", "\ufeff>a\nMK\n", ("a", "MK")),
    stops("half a byte order mark and no more", b"\xef\xbb", "after line 0: not UTF-8 text"),
    kept("no newline at the end", ">a\nMK\n>b\nMV", ("a", "MK"), ("b", "MV")),
    listed("a header without sequence", ">a\n>b\nMK\n", ("a", "rejected", None), ("b", "accepted", "MK"), words="no residue"),
    listed("a header without sequence at the end", ">b\nMK\n>a", ("b", "accepted", "MK"), ("a", "rejected", None)),
    stops("a sequence without header", "\nMKV\n", "line 2: not FASTA"),
    listed("an empty header", ">\nMK\n>b\nMV\n", ("", "rejected", None), ("b", "accepted", "MV"), words="without an id"),
    stops("an id twice, the same sequence", ">a\nMK\n>b\nV\n>a\nMK\n", "line 5: id 'a' is already on line 1; rename"),
    stops("an id twice, another sequence", ">a\nMK\n>a\nMV\n", "line 3: id 'a' is already on line 1; rename one, or"),
    kept(
        "an id twice, on_duplicate_id: suffix",
        ">a\nMK\n>a\nMV\n>a_2\nL\n",
        *[("a", "MK"), ("a_2", "MV"), ("a_2_2", "L")],
        options="--on-duplicate-id suffix",
    ),
    kept("a header with spaces and tabs", ">a b\tc d\nMK\n>e\tf\nMV\n", ("a", "MK"), ("e", "MV")),
    kept("a header that begins with a space", "> a b\nMK\n", ("a", "MK")),
    kept("ids with / and ..", ">../../a\nMK\n>/etc/b\nMV\n>..\nL\n", ("../../a", "MK"), ("/etc/b", "MV"), ("..", "L")),
    kept("ids with quotes", ">a'b\nMK\n>\"c\nMV\n", ("a'b", "MK"), ('"c', "MV")),
    listed("an unbalanced quote in a record that is listed", '>"c\nM1\n>"d\nM2\n', *[(f'"{i}', "rejected", None) for i in "cd"]),
    kept("ids that are not ASCII", ">α-globin\nMK\n>蛋白\nMV\n", ("α-globin", "MK"), ("蛋白", "MV")),
    kept("an id of 10,000 characters", f">{LONG}\nMK\n", (LONG, "MK")),
    kept("lower case, as of masked repeats", ">a\nmkVll\n", ("a", "MKVLL")),
    kept("* at the end", ">a\nMKV*\n", ("a", "MKV")),
    listed("* inside", ">a\nMK*V\n", ("a", "rejected", None), words="'*'"),
    listed("two * at the end", ">a\nMKV**\n", ("a", "rejected", None), words="'*'"),
    listed("J (leucine or isoleucine)", ">a\nMJV\n", ("a", "rejected", None), words="'J'"),
    stops("J, on_invalid: fail", ">a\nMJV\n", "line 1: record 'a': characters that are not residues: 'J'; correct it", options="--on-invalid fail"),
    listed("J, on_invalid: replace", ">a\nMJV\n", ("a", "replaced", "MXV"), words="'J'", options="--on-invalid replace"),
    listed("digits, as of GenBank's layout", ">a\n1 MKV LLA\n", ("a", "rejected", None), words="if they number lines or positions, leave them out"),
    listed("chains in one record, A:B", ">a\nMKV:GGS\n", ("a", "rejected", None), words="write a record for each chain"),
    listed("chains in one record, A|B", ">a\nMKV|GGS\n", ("a", "rejected", None), words="write a record for each chain"),
    listed("chains in one record, A/B", ">a\nMKV/GGS\n", ("a", "rejected", None), words="write a record for each chain"),
    kept("<mask> (a token of fair-esm's)", ">a\nMK<mask>V<MASK>\n", ("a", "MK<mask>V<mask>")),
    listed("# for a mask", ">a\nMK#V\n", ("a", "rejected", None), words="a masked residue is written <mask>"),
    kept("- and . of an alignment (tokens of the model)", ">a\nMK--V..L\n", ("a", "MK--V..L")),
    kept("white space inside", ">a\nMK V\tL\n  A\n\nG\n", ("a", "MKVLAG")),
    listed("letters that are not ASCII", ">a\nMK\u00c4\n", ("a", "rejected", None), words="'Ä'"),
    listed("a > that does not begin its line", ">a\nMK\n >b\nMV\n", ("a", "rejected", None), words="'>'"),
    kept("one residue", ">a\nM\n", ("a", "M")),
    kept("34,350 residues", ">titin\n" + "MKVLLAGE" * 4293 + "MKVLLA\n", ("titin", "MKVLLAGE" * 4293 + "MKVLLA")),
    Row(f"{MANY:,} records of 20 residues (chunked)", "every record accepted", ("s.fasta", many_records, "", MANY)),
    stops("a record of more letters than max_record_residues", ">a\nMKV\nMKV\n", "line 3: record 'a' of line 1 has more than 5 letters", options="--max-record-residues 5"),
    held_by("a gzip bomb: a line, short lines, a header, NUL bytes of 300 MB", "one line, in 24 MiB", "unit/sequences/test_memory.py::test_a_gzip_bomb_ends_in_one_line_and_in_little_memory"),
    held_by("nucleotides of any length", "memory at most three times the longest record", "unit/sequences/test_memory.py::test_nucleotides_take_at_most_three_times_the_longest_record"),
    held_by("escape sequences in a header or a path", "shown with escapes, never sent to the terminal", "scripts/test_log.py::test_escape_sequences_of_a_header_and_of_a_path_are_shown_and_not_sent"),
    held_by("200,000 rejects", "the log has 20 of a file and how many more", "scripts/test_log.py::test_the_log_has_the_first_rejects_of_a_file_and_how_many_more_there_are"),
    held_by("a FASTA or model whose path begins with a hyphen", "the run passes", "workflow/test_names_of_files.py::test_a_sheet_of_a_spreadsheet_with_paths_that_look_like_options"),
    held_by("<mask>, from FASTA to validation", "what fair-esm makes of it", "unit/embedding/test_masks.py::test_a_masked_sequence_is_embedded_as_fair_esm_does_and_validated"),
    held_by("34,350 residues, embedded on a CPU", "whole, within 4 GB", "workflow/test_workflow.py::test_titin_is_embedded_whole_within_4_gb"),
    held_by("samples with nothing, or all rejected, to the report", "the run passes and says so", "workflow/test_workflow.py::test_samples_with_nothing_or_next_to_nothing"),
    held_by("any bytes, any text (hypothesis)", "every record is accounted for, or one message", "faults/test_any_input.py::test_every_record_of_any_text_is_accounted_for"),
]  # fmt: skip


def put(folder, name, content):
    path = folder / name
    if content == "directory":
        path.mkdir()
    elif content is not None:
        content = content() if callable(content) else content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def check_nothing_is_lost(folder, sample="s"):
    """Hold manifest, counts, list of rejects and chunks to each other; return the manifest."""
    manifest, counts = read_manifest(folder / "m.parquet"), read_json(folder / "c.json")
    statuses = manifest["status"].value_counts().to_dict()
    assert counts["records"] == len(manifest) == sum(counts[s] for s in ("accepted", "replaced", "rejected"))
    assert all(statuses.get(s, 0) == counts[s] for s in ("accepted", "replaced", "rejected"))
    assert manifest["position"].tolist() == list(range(len(manifest)))
    rejects = pd.read_csv(folder / "r.tsv", sep="\t", dtype=str, keep_default_na=False)
    unusual = manifest[manifest["status"] != "accepted"]
    assert rejects["id"].tolist() == unusual["id"].tolist() and rejects["line"].tolist() == [*map(str, unusual["line"])]
    chunks = [[r.sequence for r in read_records(folder / f"{i}.fasta")] for i in (1, 2)]
    assert sum(map(len, chunks)) == counts["unique_sequences"]
    for row in manifest[manifest["status"] != "rejected"].itertuples():
        sequence = chunks[row.chunk][row.row]
        assert refget_digest(sequence) == row.digest and residue_count(sequence) == row.length
    return manifest.assign(
        sequence=[chunks[c][r] if c >= 0 else None for c, r in zip(manifest.chunk, manifest.row, strict=True)]
    )


def chunk(program, name="s.fasta", options=""):
    return program("chunk_fasta", "--sample", "s", name, *shlex.split(OUTPUTS), *shlex.split(options))


@pytest.mark.parametrize("row", [row for row in ROWS if not isinstance(row.given, str)], ids=str)
def test_a_fasta_file(tmp_path, program, seen, row):
    name, content, options, *wanted = row.given
    put(tmp_path, name, content)
    done = chunk(program, name, options)
    assert "Traceback" not in done.err
    if not wanted:
        assert done.status == 1 and row.words in done.last and done.last.startswith(f"chunk_fasta.py: error: {name}")
        assert {path.name for path in tmp_path.iterdir()} <= {name}
        seen(row, done.last)
        return
    assert done.status == 0, done.err
    assert bool(wanted[0]) != ("has no record with an id" in done.err)
    manifest = check_nothing_is_lost(tmp_path)
    if wanted[0] == MANY:
        assert len(manifest) == MANY and (manifest["status"] == "accepted").all()
    else:
        assert list(zip(manifest["id"], manifest["status"], manifest["sequence"], strict=True)) == wanted[0]
    assert row.words in " ".join(manifest["reason"])
    reasons = "; ".join(dict.fromkeys(reason for reason in manifest["reason"] if reason))
    seen(
        row,
        ", ".join(f"{n} {s}" for s, n in manifest["status"].value_counts().items())
        + (f": {reasons}" if reasons else "")
        or "0 records",
    )


def test_the_sequence_of_a_long_one_is_whole(tmp_path, program):
    import numpy as np

    sequence = random_sequence(34_350, np.random.default_rng(0))
    (tmp_path / "s.fasta").write_text(f">titin\n{sequence}\n")
    assert chunk(program).status == 0
    assert check_nothing_is_lost(tmp_path)["sequence"].tolist() == [sequence]
