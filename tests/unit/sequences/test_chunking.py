"""Chunking: every record is accounted for, equal sequences are kept once, chunks have equal work."""

import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from packed_esm.errors import FastaError
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.dealing import estimated_flops
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.options import ChunkOptions, LongProteins, RecordOptions
from packed_esm.system.database import database
from packed_esm.system.files import read_json


def chunk(
    tmp_path,
    texts,
    chunks=2,
    long_proteins=LongProteins(),  # noqa: B008
    translated=False,
    earlier=(),
    **records,
):
    """Chunk samples s0, s1 ... of the given FASTA texts; return (manifest, records of each chunk, rejected, counts)."""
    options = ChunkOptions(RecordOptions(**records), long_proteins, translated=translated)
    samples = []
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.fasta").write_text(text)
        samples.append((f"s{i}", tmp_path / f"{i}.fasta"))
    paths = [tmp_path / f"{i}-of-{chunks}.fasta" for i in range(chunks)]
    outputs = (tmp_path / "m.parquet", tmp_path / "r.tsv", tmp_path / "c.json")
    counts = chunk_samples(samples, paths, *outputs, options, earlier)
    assert counts == read_json(outputs[2])
    rejected = pd.read_csv(outputs[1], sep="\t", dtype=str, keep_default_na=False)
    return pd.read_parquet(outputs[0]), [list(read_records(p)) for p in paths], rejected, counts


def test_equal_sequences_are_kept_once_across_samples_and_every_record_has_a_row(tmp_path):
    manifest, chunks, rejected, counts = chunk(tmp_path, [">a x=1\nMKV\n>b\nGG GG\n", ">c\nmkv*\n>d\nLLLLL\n"])
    assert manifest["id"].tolist() == ["a", "b", "c", "d"]
    assert manifest["sample"].tolist() == ["s0", "s0", "s1", "s1"] and manifest.position.tolist() == [
        0,
        1,
        0,
        1,
    ]
    assert manifest.description[0] == "a x=1" and manifest.line.tolist() == [1, 3, 1, 3]
    assert counts["unique_sequences"] == 3 and counts["records"] == counts["accepted"] == 4
    for row in manifest.itertuples():
        record = chunks[row.chunk][row.row]
        assert record.id == row.digest == refget_digest(record.sequence)
        assert len(record.sequence) == row.length
    assert (manifest.chunk[0], manifest.row[0]) == (manifest.chunk[2], manifest.row[2])
    assert rejected.empty


MIXED = ">good\nMKV\n>empty\n\n>jay\nMJK\n>star\nM*K\n>\nMKV\n>digits\n12\n>gap\nM-K.\n"


def test_records_that_cannot_be_embedded_are_listed_with_line_and_reason(tmp_path):
    manifest, chunks, rejected, counts = chunk(tmp_path, [MIXED])
    assert counts["records"] == 7 and counts["accepted"] == 2 and counts["rejected"] == 5
    assert rejected["id"].tolist() == ["empty", "jay", "star", "", "digits"]
    assert rejected.line.tolist() == ["3", "5", "7", "9", "11"]
    assert rejected.reason.tolist() == [
        "no residue",
        "characters that are not residues: 'J'",
        "characters that are not residues: '*'",
        "header without an id",
        "characters that are not residues: '1' '2'; if they number lines or positions, leave them out",
    ]
    assert (manifest.chunk[manifest.status == "rejected"] == -1).all()
    assert sum(map(len, chunks)) == 2


def test_invalid_characters_are_replaced_by_choice_and_listed(tmp_path):
    _, chunks, rejected, counts = chunk(tmp_path, [MIXED], on_invalid="replace")
    assert sorted(r.sequence for records in chunks for r in records) == sorted(["MKV", "MXK", "XX", "M-K."])
    assert rejected.status.tolist() == ["rejected", "replaced", "replaced", "rejected", "replaced"]
    assert counts["replaced"] == 3  # jay and star become the same sequence


def test_invalid_records_fail_by_choice(tmp_path):
    with pytest.raises(FastaError, match=r"0.fasta, line 3: record 'empty': no residue; correct it"):
        chunk(tmp_path, [MIXED], on_invalid="fail")
    assert not (tmp_path / "m.parquet").exists()


def test_a_repeated_id_stops_with_both_lines(tmp_path):
    with pytest.raises(FastaError, match=r"0.fasta, line 3: id 'a' is already on line 1.*on_duplicate_id: suffix"):
        chunk(tmp_path, [">a\nMK\n>a\nGG\n"])


def test_repeated_ids_get_a_suffix_by_choice_and_never_a_taken_one(tmp_path):
    manifest, *_ = chunk(tmp_path, [">a\nMK\n>a_2\nLL\n>a\nGG\n>a\nVV\n"], on_duplicate_id="suffix")
    assert manifest["id"].tolist() == ["a", "a_2", "a_3", "a_4"]


def test_many_repeated_ids_take_no_longer_than_others(tmp_path):
    """Each looks for its suffix where the last one was found: 20,000 would take minutes otherwise."""
    manifest, *_ = chunk(tmp_path, [">unnamed protein\nMKV\n" * 20_000], on_duplicate_id="suffix")
    assert manifest["id"].is_unique and manifest["id"].iloc[-1] == "unnamed_20000"


def test_headers_without_an_id_are_rejected_each(tmp_path):
    _, _, rejected, counts = chunk(tmp_path, [">\nMK\n>\nGG\n>ok\nMKV\n"])
    assert counts["accepted"] == 1 and rejected.reason.tolist() == ["header without an id"] * 2


def test_the_same_id_in_two_samples_is_fine(tmp_path):
    manifest, *_ = chunk(tmp_path, [">a\nMK\n", ">a\nGG\n"])
    assert manifest["id"].tolist() == ["a", "a"]


def test_empty_samples_give_empty_chunks(tmp_path):
    manifest, chunks, _, counts = chunk(tmp_path, ["", ""], chunks=3)
    assert manifest.empty and chunks == [[], [], []] and counts["records"] == 0
    manifest, chunks, *_ = chunk(tmp_path, [">a\nMKV\n"], chunks=3)
    assert sorted(map(len, chunks)) == [0, 0, 1]


def test_proteins_that_look_like_nucleotides_are_kept_with_one_warning_a_sample(tmp_path, caplog):
    text = f">p\nMKV\n>d1\n{'acgu' * 8}\n>d2\n{'ACGTN' * 9}\n>short\n{'A' * 30}\n"
    *_, counts = chunk(tmp_path, [text, ">q\nMKV\n"])
    assert counts["accepted"] == 5
    (warning,) = caplog.messages
    assert "0.fasta: 2 records of sample s0 look like nucleotides, the first is 'd1' on line 3" in warning
    assert "set input: nucleotide" in warning
    caplog.clear()
    chunk(tmp_path, [text], translated=True)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("action", "status", "lengths", "reason"),
    [
        ("reject", "rejected", [4], "9 residues, more than max_length 4"),
        ("truncate", "truncated", [4, 4], "the first 4 of 9 residues"),  # both long ones begin alike
        ("split", "split", [9, 4, 9], "9 residues in 6 windows of 4"),
    ],
)
def test_a_record_that_is_too_long_is_listed_with_what_became_of_it(tmp_path, action, status, lengths, reason):
    text = ">long\nMKVLAAGGS\n>fits\nMKVS\n>odd\nMKVLAAG*S\n"
    limit = LongProteins(4, action, 3)
    manifest, (records,), rejected, counts = chunk(tmp_path, [text], 1, on_invalid="replace", long_proteins=limit)
    assert [len(record.sequence) for record in records] == lengths
    assert all(refget_digest(record.sequence) == record.id for record in records)
    assert manifest["status"].tolist() == [status, "accepted", status]
    assert counts["accepted"] == 1 and counts[status] == 2
    assert counts["residues"] == manifest.length[manifest.digest != ""].sum()
    assert rejected["id"].tolist() == ["long", "odd"]
    assert rejected["reason"].tolist() == [reason, f"characters that are not residues: '*'; {reason}"]


# (header, lines, status, sequence or None, what the reason says)
KINDS = [
    (
        "complex1 chains A:B",
        "MKVLLAGGST:MAAKW",
        "rejected",
        None,
        "':'; if they separate chains, write a record for each",
    ),
    ("paired", "EVQLVESGG|DIQMTQ", "rejected", None, "'|'; if they separate chains, write a record for each chain"),
    ("by_slash", "EVQLVESGG/DIQMTQ", "rejected", None, "'/'; if they separate chains, write a record for each chain"),
    ("masked", "MKVLL<mask>GGST", "accepted", "MKVLL<mask>GGST", ""),
    ("hash_masked", "MKVLL#GGST", "rejected", None, "'#'; a masked residue is written <mask>"),
    ("other_token", "MK<eos>VL", "rejected", None, "'<' '>'; <mask> is the only special token that is allowed"),
    ("sp|P04637-2|P53_HUMAN Isoform 2 OS=Homo sapiens", "MEEPQS", "accepted", "MEEPQS", ""),
    ("sp|P04637|P53_HUMAN Cellular tumor antigen", "MEEPQSL", "accepted", "MEEPQSL", ""),
    ("a3m_hit", "MKV--LLaggAG-STERTIDP", "accepted", "MKV--LLAGGAG-STERTIDP", ""),
    ("selenoU", "MKVLLAGGUSTERO", "accepted", "MKVLLAGGUSTERO", ""),
    ("pseq softmasked", "mkvllaggSTERTIDPKQ", "accepted", "MKVLLAGGSTERTIDPKQ", ""),
    ("spaced", "M K V L L A G\nG S T E R", "accepted", "MKVLLAGGSTER", ""),
    ("numbered", "1 MKVLLAGGST 10", "rejected", None, "'1' '0'; if they number lines or positions, leave them out"),
    ("two_mistakes", "1 MK:VL", "rejected", None, "write a record for each chain; if they number lines"),
    ("aligned gap only", "-----", "accepted", "-----", ""),  # gaps are tokens of the model
]


def test_records_as_other_programs_write_them_are_kept_or_listed_with_what_to_do(tmp_path):
    text = "".join(f">{header}\n{lines}\n" for header, lines, *_ in KINDS)
    manifest, (records,), rejected, counts = chunk(tmp_path, [text], 1)
    sequences = {record.id: record.sequence for record in records}
    assert [r.split()[0] for r, *_ in KINDS] == manifest["id"].tolist()
    for row, (header, _, status, sequence, words) in zip(manifest.itertuples(), KINDS, strict=True):
        assert row.description == header and row.status == status
        assert sequences.get(row.digest) == sequence and words in row.reason and bool(words) == bool(row.reason)
    assert rejected["reason"].tolist() == [reason for reason in manifest["reason"] if reason]
    (masked,) = manifest[manifest["masks"] > 0].itertuples()
    assert (masked.id, masked.length, masked.masks) == ("masked", 10, 1)
    assert (
        counts["residues"]
        == sum(len(s.replace("<mask>", "?")) for s in sequences.values())
        == counts["unique_residues"]
    )


def test_a_mask_is_one_residue_where_a_record_is_cut_or_replaced(tmp_path):
    text = ">a\nM<MASK>KV<mask>L\n>b\nM<mask>#<mask>K\n"
    limit = LongProteins(4, "truncate")
    manifest, (records,), *_ = chunk(tmp_path, [text], 1, on_invalid="replace", long_proteins=limit)
    assert [record.sequence for record in records] == ["M<mask>KV", "M<mask>X<mask>"]
    assert manifest["length"].tolist() == [4, 4] and manifest["masks"].tolist() == [1, 2]
    assert all(refget_digest(record.sequence) == record.id for record in records)


def test_an_id_with_a_suffix_that_a_later_record_has_is_not_given_twice(tmp_path):
    """Also where that record's own id, with a suffix, is the id of another one."""
    names = ["a", "a", "a_2", "a_2_2", "b_1", "a_x"]
    text = "".join(f">{name}\n{'MKV' * (i + 1)}\n" for i, name in enumerate(names))
    manifest, (records,), *_ = chunk(tmp_path, [text, ">a\nMM\n"], 1, on_duplicate_id="suffix")
    assert manifest["id"].tolist() == ["a", "a_2", "a_2_2", "a_2_2_2", "b_1", "a_x", "a"]
    assert [record.description.split("|")[1] for record in records] == manifest["id"].tolist()


def many(count, seed, copies_of=()):
    """Return a FASTA text of random proteins, and these; every third is one of `copies_of`."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(np.clip(rng.lognormal(3.5, 0.6, count), 5, 400).astype(int)).tolist()
    letters = rng.choice(np.frombuffer(b"LAGVSERTIDPKQNFYMHWC", np.uint8), ends[-1]).tobytes().decode()
    sequences = [letters[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if copies_of:
        sequences[::3] = [copies_of[i] for i in rng.integers(0, len(copies_of), len(sequences[::3]))]
    return "".join(f">p{i} number {i}\n{sequence}\n" for i, sequence in enumerate(sequences)), sequences


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_threads_change_no_byte_and_chunks_have_the_first_records_in_order(tmp_path, monkeypatch):
    text, sequences = many(9_000, 0)
    texts = [text, many(6_000, 1, sequences[::7])[0] + ">bad\nM1\n"]
    for threads in (1, 4):
        (tmp_path / str(threads)).mkdir()
        monkeypatch.setattr("packed_esm.sequences.chunking.database", partial(database, threads=threads))
        manifest, chunks, *_ = chunk(tmp_path / str(threads), texts, 3)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "4")
    assert sum(map(len, chunks)) == manifest["digest"].nunique() - 1
    firsts = manifest[manifest["chunk"] >= 0].drop_duplicates("digest")
    for number, records in enumerate(chunks):  # the first records, in order
        wanted = firsts[firsts["chunk"] == number]
        assert wanted["row"].tolist() == list(range(len(records)))
        assert [record.id for record in records] == wanted["digest"].tolist()
        assert [record.description.split()[1] for record in records] == (wanted["sample"] + "|" + wanted["id"]).tolist()
    loads = [sum(estimated_flops(len(r.sequence), ChunkOptions.embed_dim) for r in records) for records in chunks]
    assert max(loads) / min(loads) < 1.02


def test_a_failed_run_leaves_nothing(tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no")

    for place in ("chunking.ChunkFiles.add", "deduplication.Records.place", "chunking.sha256_as_read"):
        with monkeypatch.context() as patched:
            patched.setattr(f"packed_esm.sequences.{place}", broken)
            with pytest.raises(RuntimeError, match="no"):
                chunk(tmp_path, [">a\nMKV\n"])
        assert [path.name for path in tmp_path.iterdir()] == ["0.fasta"]
    chunk(tmp_path, [">a\nMKV\n"])
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_leaves_a_scratch_folder_that_the_next_one_removes(tmp_path):
    pipe = tmp_path / "0.fasta"
    os.mkfifo(pipe)
    program = f"""
from pathlib import Path
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.dealing import estimated_flops
folder = Path({str(tmp_path)!r})
chunk_samples([("s", folder / "0.fasta")], [folder / "1"], folder / "m.parquet", folder / "r", folder / "c")
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    with pipe.open("w") as handle:  # until it reads
        handle.write(">a\nMKV\n")
        handle.flush()
        process.kill()
        process.wait()
    pipe.unlink()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".m.parquet.scratch.")
    chunk(tmp_path, [">a\nMKV\n"])
    assert not left.exists()


def test_a_disk_without_room_is_named_before_anything_is_read(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3_000_000_000))
    (tmp_path / "0.fasta").touch()
    os.truncate(tmp_path / "0.fasta", 10_000_000_000)
    left = tmp_path / ".m.scratch.another_host.1.0badc0de.partial"
    left.mkdir()
    message = (
        rf"chunking needs 5.0 to 21.0 GB here, and 3.0 GB are free; make room; remove {left} if .*: '.*test_a_disk"
    )
    with caplog.at_level("INFO"), pytest.raises(OSError, match=message):
        chunk_samples([("s", tmp_path / "0.fasta")], [], *(tmp_path / name for name in "mrc"))
    assert sorted(tmp_path.iterdir()) == [left, tmp_path / "0.fasta"]
    assert "10.0 GB for scratch files, removed at the end, and 11.0 GB for chunks and manifest" in caplog.text


def test_a_disk_that_may_become_full_is_warned_of(tmp_path, monkeypatch, caplog):
    size = len(">a\nMKV\n")
    for free, warned in ((2.2 * size, 0), (0.6 * size, 1)):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        caplog.clear()
        chunk(tmp_path, [">a\nMKV\n"])
        assert len([one for one in caplog.records if one.levelname == "WARNING"]) == warned
    assert "GB are free; make room" in caplog.text


def test_folders_whose_names_mean_something_to_duckdb_are_folders(tmp_path):
    for name in ("model=650M", "[a]*", "it's"):
        (tmp_path / name).mkdir()
        manifest, *_ = chunk(tmp_path / name, [">a\nMKV\n>b\nMKV\n"], 1)
        assert manifest["id"].tolist() == ["a", "b"] and manifest["row"].tolist() == [0, 0]


def random_proteins(count, seed=0):
    """Return {id: sequence} of proteins of 20 to 400 residues, all different."""
    rng = np.random.default_rng(seed)
    return {f"p{i}": "".join(rng.choice(list("ACDEFGHIKL"), rng.integers(20, 400))) for i in range(count)}


def earlier_file(path, sequences):
    pq.write_table(pa.table({"digest": [refget_digest(sequence) for sequence in sequences]}), path)
    return path


def fasta(proteins):
    return "".join(f">{name}\n{sequence}\n" for name, sequence in proteins.items())


def work(records):
    return sum(estimated_flops(len(record.sequence), ChunkOptions.embed_dim) for record in records)


def test_known_sequences_and_new_ones_are_in_different_chunks_of_equal_work(tmp_path):
    proteins = random_proteins(400)
    every = list(proteins.values())
    known = [every[i] for i in np.random.default_rng(1).permutation(400)[:390]]
    files = [earlier_file(tmp_path / "b=1.parquet", known[:200]), earlier_file(tmp_path / "a.parquet", known[150:])]
    text = fasta(proteins) + f">twin\n{every[0]}\n"
    manifest, chunks, *_ = chunk(tmp_path, [text], chunks=10, earlier=files)
    assert {record.sequence for record in chunks[0]} == {*every} - {*known}
    in_files = {sequence: place for place, sequence in reversed(list(enumerate(known)))}
    places = [[in_files[record.sequence] for record in one] for one in chunks[1:]]
    assert all(max(one) < min(following) for one, following in zip(places, places[1:], strict=False))
    works = [work(one) for one in chunks[1:]]
    assert max(works) - min(works) <= 2 * max(work([record]) for one in chunks for record in one)
    for row in manifest.itertuples():
        assert chunks[row.chunk][row.row].id == row.digest
    assert sum(map(len, chunks)) == 400 and manifest.chunk.iloc[-1] == manifest.chunk[0]


@pytest.mark.parametrize(("known", "of_new"), [(0, 4), (1, 3), (80, 2), (159, 1), (160, 0)])
def test_new_sequences_get_their_share_of_the_chunks_and_at_least_one(tmp_path, known, of_new):
    proteins = random_proteins(160)
    every = list(proteins.values())
    _, chunks, *_ = chunk(
        tmp_path, [fasta(proteins)], chunks=4, earlier=[earlier_file(tmp_path / "e.parquet", every[:known])]
    )
    new = {*every[known:]}
    assert [bool(new & {r.sequence for r in one}) for one in chunks] == [True] * of_new + [False] * (4 - of_new)


def test_without_known_sequences_or_with_one_chunk_nothing_changes_and_damage_is_named(tmp_path, caplog):
    text = fasta(random_proteins(50))
    other = earlier_file(tmp_path / "other.parquet", random_proteins(5, seed=1).values())
    same = earlier_file(tmp_path / "same.parquet", random_proteins(5).values())
    half = tmp_path / "half.parquet"
    half.write_bytes(same.read_bytes()[:40])

    def chunks(number, earlier):
        chunk(tmp_path, [text], chunks=number, earlier=earlier)
        return [(tmp_path / f"{i}-of-{number}.fasta").read_bytes() for i in range(number)]

    assert chunks(3, [other]) == chunks(3, []) == chunks(3, [half, tmp_path / "nowhere.parquet"])
    assert f"the digests in {half} cannot be read" in caplog.text and "nowhere.parquet cannot" in caplog.text
    assert chunks(1, [same]) == chunks(1, [])
    assert chunks(3, [half, same]) == chunks(3, [same]) != chunks(3, [])
