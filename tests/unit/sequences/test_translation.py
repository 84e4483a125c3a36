"""Six frames of windows: VirNucPro's windows, ids and rule, each genetic code, and an account of every record."""

import csv
import gzip
import warnings

import numpy as np
import pytest
import yaml
from Bio import BiopythonWarning
from Bio.Data.CodonTable import ambiguous_dna_by_id, unambiguous_dna_by_id
from Bio.Seq import Seq
from conftest import ROOT
from packed_esm.errors import FastaError
from packed_esm.sequences import translation
from packed_esm.sequences.alphabet import invalid_characters
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.options import RecordOptions, TranslationOptions
from packed_esm.sequences.translation import FRAMES, codon_table, nucleotide_windows, six_frames, translate_fasta
from packed_esm.system.files import read_json, sha256


def dna(length, seed=0, letters="ACGT"):
    return "".join(np.random.default_rng(seed).choice(list(letters), size=length))


def translated(tmp_path, text, on_invalid="reject", on_duplicate_id="fail", counts_path=None, **translation):
    """Return (counts, {id: protein}, rows of the table) of a FASTA text."""
    (tmp_path / "in.fasta").write_text(text)
    options = (TranslationOptions(**translation), RecordOptions(on_invalid, on_duplicate_id), counts_path)
    counts = translate_fasta(tmp_path / "in.fasta", tmp_path / "out.fasta", tmp_path / "t.tsv", *options)
    proteins = {r.id: r.sequence for r in read_records(tmp_path / "out.fasta")}
    with (tmp_path / "t.tsv").open(newline="") as handle:
        return counts, proteins, list(csv.DictReader(handle, delimiter="\t"))


def test_all_six_frames_of_a_sequence_worked_out_by_hand():
    """ATGGCCATTGTAATGGG and its reverse complement CCCATTACAATGGCCAT, codon by codon."""
    assert dict(six_frames("ATGGCCATTGTAATGGG", codon_table(1))) == {
        "F1": "MAIVM",  # ATG GCC ATT GTA ATG
        "F2": "WPL*W",  # TGG CCA TTG TAA TGG
        "F3": "GHCNG",  # GGC CAT TGT AAT GGG
        "R1": "PITMA",  # CCC ATT ACA ATG GCC
        "R2": "PLQWP",  # CCA TTA CAA TGG CCA
        "R3": "HYNGH",  # CAT TAC AAT GGC CAT
    }


@pytest.mark.parametrize(
    ("genetic_code", "protein"),
    [
        (1, "*KMRIL*R*"),
        (2, "WKM*ML**W"),  # vertebrate mitochondria
        (4, "WKMRIL*RW"),  # mycoplasmas
        (11, "*KMRIL*R*"),  # bacteria: other starts only
        (12, "*KMRIS*R*"),  # CTG is S: yeasts
    ],
)
def test_a_genetic_code_by_hand(genetic_code, protein):
    codons = ("TGA", "AAA", "ATG", "AGA", "ATA", "CTG", "TAA", "AGG", "TGA")
    frames = dict(six_frames("".join(codons), codon_table(genetic_code)))
    assert frames["F1"] == protein


@pytest.mark.parametrize("genetic_code", sorted(ambiguous_dna_by_id))
def test_every_codon_of_every_genetic_code_is_ncbis_on_both_strands(genetic_code):
    ncbi = unambiguous_dna_by_id[genetic_code]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiopythonWarning)  # codons that are a stop and a residue
        codons = codon_table(genetic_code)
    for a, b, c in np.ndindex(4, 4, 4):
        codon = "ACGT"[a] + "ACGT"[b] + "ACGT"[c]
        residue = ncbi.forward_table.get(codon, "*")
        assert dict(six_frames(codon, codons))["F1"] == residue
        assert dict(six_frames(str(Seq(codon).reverse_complement()), codons))["R1"] == residue


def test_the_schema_has_the_genetic_codes_that_biopython_has():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert schema["properties"]["translation"]["properties"]["genetic_code"]["enum"] == sorted(ambiguous_dna_by_id)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 299, 300, 301])
def test_frames_have_as_many_residues_as_there_are_whole_codons(length):
    lengths = [len(protein) for _, protein in six_frames(dna(length), codon_table(1))]
    assert lengths == 2 * [max(0, length - first) // 3 for first in range(3)]


def test_the_frames_of_the_reverse_complement_are_those_of_the_other_strand():
    sequence = dna(500, letters="ACGTRYSWKMBDHVN")
    codons = codon_table(11)
    there, back = (dict(six_frames(s, codons)) for s in (sequence, str(Seq(sequence).reverse_complement())))
    assert [back[f] for f in FRAMES] == [there[f] for f in FRAMES[3:] + FRAMES[:3]]


@pytest.mark.parametrize(
    ("codon", "residue"),
    [("GCN", "A"), ("TAR", "*"), ("YTA", "L"), ("RAY", "B"), ("SAR", "Z"), ("TAN", "X"), ("NNN", "X"), ("MTT", "X")],
)
def test_an_ambiguous_codon_is_what_its_readings_have_in_common_or_left_out(codon, residue):
    """MTT is I or L; `J` would be no token of the model."""
    there = f"ATG{codon}TGG"
    for frame, sequence in (("F1", there), ("R1", str(Seq(there).reverse_complement()))):
        assert dict(six_frames(sequence, codon_table(1)))[frame] == f"M{residue}W"
        assert dict(six_frames(sequence, codon_table(1, "skip")))[frame] == "MW"
    assert not invalid_characters(residue.replace("*", ""))


def test_an_unknown_genetic_code_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="genetic_code: NCBI has no table 7; give one of 1, 2, 3, 4, 5, 6, 9"):
        codon_table(7)


@pytest.mark.parametrize(
    ("length", "window", "expected"),
    [
        (3, 300, [(0, 3)]),
        (300, 300, [(0, 300)]),
        (301, 300, [(0, 300), (150, 301)]),  # the last is shorter: one overlap takes half of what is too much
        (600, 300, [(0, 300), (300, 600)]),
        (599, 300, [(0, 300), (299, 599)]),
        (1000, 300, [(0, 300), (249, 549), (498, 798), (747, 1000)]),
        (4199, 300, [(0, 300), (299, 599), *((i, i + 300) for i in range(599, 4199, 300))]),
        (1000, None, [(0, 1000)]),
    ],
)
def test_windows_overlap_as_virnucpros_do(length, window, expected):
    assert list(nucleotide_windows(length, window)) == expected


@pytest.mark.parametrize("window", [3, 10, 300, 500])
def test_windows_leave_no_gap_and_end_with_the_record(window):
    for length in [*range(1, 40), *range(280, 320), *range(2990, 3010), 40_003]:
        starts, ends = zip(*nucleotide_windows(length, window), strict=True)
        assert starts[0] == 0 and ends[-1] == length and len(starts) == -(-length // window)
        assert all(a < b <= end for a, b, end in zip(starts, starts[1:], ends, strict=False))
        assert all(end - start == window for start, end in zip(starts[:-1], ends[:-1], strict=True))


def test_frames_without_a_stop_are_kept_with_virnucpros_ids_and_place_and_description(tmp_path):
    """Of 14 nucleotides in windows of 9: (0, 9) and (6, 14)."""
    counts, proteins, rows = translated(tmp_path, ">r1 family=a b\natggcctaaTGGCC\n", window=9)
    # ATGGCCTAA: TGG CCT | GGC CTA; reverse complement TTAGGCCAT. TAATGGCC: AAT GGC, ATG GCC; GGCCATTA.
    assert proteins == {
        "r1_chunk_1F2": "WP",
        "r1_chunk_1F3": "GL",
        "r1_chunk_1R1": "LGH",
        "r1_chunk_1R3": "RP",
        "r1_chunk_2F2": "NG",
        "r1_chunk_2F3": "MA",
        "r1_chunk_2R1": "GH",
        "r1_chunk_2R2": "AI",
        "r1_chunk_2R3": "PL",
    }
    descriptions = [r.description.split(maxsplit=1)[1] for r in read_records(tmp_path / "out.fasta")]
    assert descriptions == 4 * ["nt=1-9 family=a b"] + 5 * ["nt=7-14 family=a b"]
    assert counts == {"records": 1, "rejected": 0, "windows": 2, "proteins": 9}
    assert rows == [{"id": "r1", "line": "1", "length": "14", "windows": "2", "kept": "9", "reason": ""}]


def test_without_windows_a_record_is_read_whole_and_its_id_has_the_frame_alone(tmp_path):
    _, proteins, rows = translated(tmp_path, f">g\n{'GCC' * 1000}\n", window=None)
    assert {name: len(protein) for name, protein in proteins.items()} == dict(
        zip([f"g{frame}" for frame in FRAMES], 2 * [1000, 999, 999], strict=True)
    )
    assert rows[0]["windows"] == "1"


def test_frames_of_nothing_but_n_are_left_out_and_the_record_says_so(tmp_path):
    for option in ("resolve", "skip"):
        _, proteins, rows = translated(
            tmp_path, f">n\n{'N' * 300}\n>stops\n{'TTAATTAATTAA' * 9}\n>a\nATGNNNGCC\n", ambiguous_codons=option
        )
        assert proteins["a_chunk_1F1"] == {"resolve": "MXA", "skip": "MA"}[option]
        assert {name.split("_")[0] for name in proteins} == {"a"}
        assert [row["reason"] for row in rows] == 2 * ["every frame has a stop or no residue"] + [""]


def test_ids_are_distinct_where_records_have_one_name_and_no_two_records_share_a_prefix(tmp_path):
    text = f">a\n{dna(3000)}\n>b\n{dna(900, 1)}\n>a\n{dna(3000, 2)}\n>a_2\n{'GCC' * 300}\n"
    with pytest.raises(FastaError, match=r"in\.fasta, line 5: id 'a' is already on line 1; rename one"):
        translated(tmp_path, text)
    assert not (tmp_path / "out.fasta").exists() and not (tmp_path / "t.tsv").exists()
    counts, proteins, rows = translated(tmp_path, text, on_duplicate_id="suffix")
    assert len(proteins) == counts["proteins"] == sum(int(row["kept"]) for row in rows)
    assert [row["id"] for row in rows] == ["a", "b", "a_2", "a_2_2"]


BAD = ">p\nMKVLLE\n>ok one\nATGGCC\n>empty\n>two\nAT\n>\nATGGCC\n>rna\nAUGGCC\n>gap\nATG-CC\n"


def test_records_that_cannot_be_translated_are_listed_and_logged_with_line_and_remedy(tmp_path, caplog):
    counts, proteins, rows = translated(tmp_path, BAD)
    assert {name.split("_")[0] for name in proteins} == {"ok"}
    assert counts == {"records": 7, "rejected": 6, "windows": 1, "proteins": len(proteins)}
    assert [(row["id"], row["line"], row["windows"], row["reason"]) for row in rows] == [
        (
            "p",
            "1",
            "0",
            "characters that are not nucleotides of DNA: 'L' 'E'; correct it, or set input: protein if it is a protein",
        ),
        ("ok", "3", "1", ""),
        ("empty", "5", "0", "shorter than a codon (0)"),
        ("two", "6", "0", "shorter than a codon (2)"),
        ("", "8", "0", "header without an id"),
        ("rna", "10", "0", "characters that are not nucleotides of DNA: 'U'; this is RNA, write T for U"),
        (
            "gap",
            "12",
            "0",
            "characters that are not nucleotides of DNA: '-'; correct it, or set input: protein if it is a protein",
        ),
    ]
    assert "in.fasta, line 10: record 'rna' rejected: characters that are not nucleotides of DNA" in caplog.text


def test_by_choice_such_a_record_stops_the_run_or_is_mended_and_listed(tmp_path):
    with pytest.raises(
        FastaError, match=r"in\.fasta, line 1: record 'p': characters that are not nucleotides.*set on_invalid: reject"
    ):
        translated(tmp_path, BAD, on_invalid="fail")
    _, proteins, rows = translated(tmp_path, BAD, on_invalid="replace")
    assert proteins["rna_chunk_1F1"] == "MA" and proteins["gap_chunk_1F1"] == "MX"
    assert rows[5]["reason"] == "replaced (U by T, others by N): 'U'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ">p\nMKVLLE\n>q\nMKF\n",
            "line 1: record 'p': characters that are not nucleotides of DNA: 'L' 'E'; .*input: protein.*none of the 2",
        ),
        (">r\nAUG\n", "line 1: record 'r': .*write T for U"),
        ("ATG\n", "line 1: not FASTA"),
    ],
)
def test_a_file_without_a_record_to_translate_is_a_mistake_and_leaves_nothing(tmp_path, text, message):
    with pytest.raises(FastaError, match=message):
        translated(tmp_path, text)
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]


def test_a_window_shorter_than_a_codon_is_named(tmp_path):
    with pytest.raises(ValueError, match="window: 2 nucleotides are less than a codon; give 3 or more, or none"):
        translated(tmp_path, ">a\nATG\n", window=2)


def test_an_empty_file_gives_no_protein_and_gzip_the_same_as_plain(tmp_path):
    assert translated(tmp_path, "")[1:] == ({}, [])
    text = f">a\n{dna(5000)}\n"
    _, plain, _ = translated(tmp_path, text)
    (tmp_path / "in.fasta.gz").write_bytes(gzip.compress(text.encode()))
    translate_fasta(tmp_path / "in.fasta.gz", tmp_path / "out.fasta", tmp_path / "t.tsv")
    assert {r.id: r.sequence for r in read_records(tmp_path / "out.fasta")} == plain


def test_proteins_of_reads_are_as_long_as_those_of_real_ones(tmp_path, shared):
    real = list(read_records(shared / "fasta/viral_reads300_sixframe_stopfree.faa.gz"))
    coding = "".join(f">r{i}\n{dna(300, i, 'ACG')}\n" for i in range(50))  # no T: no stop on this strand
    _, proteins, _ = translated(tmp_path, coding)
    assert {len(r.sequence) for r in real} == {len(p) for p in proteins.values()} == {99, 100}
    for records in ([(r.id, r.sequence) for r in real], proteins.items()):
        lengths = {frame: {len(p) for name, p in records if name.endswith(frame)} for frame in FRAMES}
        assert lengths == dict(zip(FRAMES, 2 * [{100}, {99}, {99}], strict=True))


@pytest.mark.parametrize("length", [*range(60, 71), 127])
def test_a_record_translated_in_blocks_has_the_frames_of_one_translated_at_once(monkeypatch, length):
    sequence = dna(length, letters="ACGTRYN")
    for option in ("resolve", "skip"):
        codons = codon_table(1, option)
        at_once = list(six_frames(sequence, codons))
        monkeypatch.setattr(translation, "BLOCK", 9)
        assert list(six_frames(sequence, codons)) == at_once
        monkeypatch.undo()


def test_the_counts_have_the_sha256_of_the_file_that_was_read(tmp_path):
    counts, *_ = translated(tmp_path, f">a\n{dna(300)}\n", counts_path=tmp_path / "c.json")
    assert read_json(tmp_path / "c.json") == counts | {"fasta_sha256": sha256(tmp_path / "in.fasta")}
    assert counts["records"] == 1


def test_a_file_that_changes_while_it_is_translated_leaves_nothing(tmp_path, monkeypatch):
    def read_and_change(fasta, max_letters):
        yield from read_records(fasta, max_letters)
        fasta.write_text(f">a\n{dna(300, seed=1)}\n")

    monkeypatch.setattr(translation, "read_records", read_and_change)
    with pytest.raises(FastaError, match=r"in.fasta: it changed while it was read; run again"):
        translated(tmp_path, f">a\n{dna(300)}\n", counts_path=tmp_path / "c.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]
