"""Reading FASTA: every record is kept or named, and what cannot be read says where."""

import gzip
from io import StringIO

import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from packed_esm.errors import FastaError
from packed_esm.sequences import fasta
from packed_esm.sequences.alphabet import (
    first_residues,
    invalid_characters,
    mask_count,
    normalise,
    refget_digest,
    replace_invalid,
    residue_count,
)
from packed_esm.sequences.fasta import read_records
from packed_esm.system.files import open_text


def write(path, text, compress=False):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


@pytest.mark.parametrize("name", ["a.fasta", "a.fasta.gz"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_content_decides_whether_a_file_is_gzip(tmp_path, name, compress):
    records = list(read_records(write(tmp_path / name, ">a one\nMK\nV\n\n>b\nGG", compress)))
    assert [(r.id, r.description, r.sequence, r.line) for r in records] == [
        ("a", "a one", "MKV", 1),
        ("b", "b", "GG", 5),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends_and_byte_order_mark_change_nothing(tmp_path, newline):
    path = write(tmp_path / "a.fasta", "\ufeff>a x\nMKV\nLL\n>b\nGG\n".replace("\n", newline))
    assert [(r.id, r.sequence, r.line) for r in read_records(path)] == [("a", "MKVLL", 1), ("b", "GG", 4)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MKV\n>a\nMK\n", r"line 1: not FASTA.*'MKV'.*give a FASTA file"),
        ("\n\n; comment\n>a\nMK\n", r"line 3: not FASTA"),
        (">a\nMK\0V\n", r"line 2: NUL byte"),
        (b">a\nMK\n>b \xff\xfe\nMK\n", r"not UTF-8 text"),
    ],
)
def test_what_is_no_fasta_is_named_with_its_line(tmp_path, content, message):
    path = write(tmp_path / "bad.fasta", content)
    with pytest.raises(FastaError, match=message) as error:
        list(read_records(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_gzip_stream_cut_short_is_an_error(tmp_path, keep):
    data = gzip.compress("".join(f">s{i}\n{'MKV' * (i % 50 + 1)}\n" for i in range(5000)).encode())
    path = write(tmp_path / "cut.fasta.gz", data[: int(len(data) * keep)])
    with pytest.raises(FastaError, match="broken gzip stream"):
        list(read_records(path))


def test_an_empty_file_has_no_records(tmp_path):
    assert list(read_records(write(tmp_path / "empty.fasta", ""))) == []
    assert list(read_records(write(tmp_path / "empty.fasta.gz", "", compress=True))) == []


def test_headers_without_sequence_and_without_id_are_records_too(tmp_path):
    records = list(read_records(write(tmp_path / "a.fasta", ">\nMK\n>b\n>c\nV\n>d")))
    assert [(r.id, r.sequence) for r in records] == [("", "MK"), ("b", ""), ("c", "V"), ("d", "")]


def test_normalise_upper_cases_ascii_only_and_drops_one_final_star():
    assert normalise(" mk v\tL* ") == "MKVL"
    assert normalise("MK**") == "MK*"
    assert normalise("straße") == "STRAßE"  # str.upper() would make two residues of one
    assert invalid_characters(normalise("straße")) == "ß"


def test_a_mask_is_one_residue_in_any_case_and_over_lines():
    sequence = normalise("mk <ma\nSK>v<MASK>l<mask>")
    assert sequence == "MK<mask>V<mask>L<mask>" and invalid_characters(sequence) == ""
    assert (residue_count(sequence), mask_count(sequence)) == (7, 3)
    assert [first_residues(sequence, n) for n in (2, 3, 4, 9)] == ["MK", "MK<mask>", "MK<mask>V", sequence]
    assert refget_digest(sequence) != refget_digest("MKXVXLX")


@pytest.mark.parametrize(
    ("text", "invalid"), [("M<mask", "<"), ("M<cls>K", "<>"), ("M<ma<mask>sk>", "<>"), ("M>K", ">")]
)
def test_what_is_almost_a_mask_is_none(text, invalid):
    assert invalid_characters(normalise(text)) == invalid


def test_each_invalid_character_is_replaced_and_masks_stay():
    assert replace_invalid(normalise("M<J<mask>#K>")) == "MXX<mask>XKX"


def test_invalid_characters_are_what_is_no_token():
    assert invalid_characters("LAGVSERTIDPKQNFYMHWCXBUZO.-") == ""
    assert invalid_characters("MJ*K1J") == "J*1"


def test_refget_digest_is_the_one_of_the_standard():
    # The example of the refget specification, https://ga4gh.github.io/refget/sequences/
    assert refget_digest("ACGT") == "SQ.aKF498dAxcJAqme6QYQ7EZ07-fiw8Kw2"


def test_text_is_read_lazily(tmp_path):
    with open_text(write(tmp_path / "a.fasta", ">a\nMK\n")) as handle:
        assert handle.readline() == ">a\n"


TEXTS = (
    ">a b\tc \nMK V\n\n L>L\n>b\n>\nMKVLLAGGSTERTIDPKQ>NFY\n>c",
    "\n \n> a\n>MKV\nMKV  \n\n\n>d\nMKVLLAGGSTERTIDPKQNFYMHWC",
    ">\u00e9\u86cb\nM\u00c4K\n*\n",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 2**16])
def test_records_are_those_of_biopython_however_a_line_is_cut_into_pieces(tmp_path, monkeypatch, text, piece):
    monkeypatch.setattr(fasta, "PIECE", piece)
    records = list(read_records(write(tmp_path / "a.fasta", text)))
    assert [(r.description, r.sequence) for r in records] == list(SimpleFastaParser(StringIO(text)))
    lines = text.split("\n")
    assert [r.line for r in records] == [number for number, line in enumerate(lines, 1) if line.startswith(">")]


@pytest.mark.parametrize(("letters", "fits"), [(8, True), (7, False)])
def test_a_record_may_have_as_many_letters_as_allowed_without_its_white_space(tmp_path, letters, fits):
    path = write(tmp_path / "a.fasta", ">a\nMK\n>b\nM K\tV \n\nLLAGG\n>c\nMK\n")
    if fits:
        assert len(list(read_records(path, letters))) == 3
    else:
        with pytest.raises(FastaError, match=r"line 6: record 'b' of line 3 has more than 7 letters.*max_record_resid"):
            list(read_records(path, letters))
