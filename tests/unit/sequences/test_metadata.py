"""Metadata of the user's: which row is whose, and what is said where few or none match."""

import re

import numpy as np
import pandas as pd
import pytest
from packed_esm.errors import SheetError
from packed_esm.sequences.metadata import match_metadata, read_metadata


def proteins(**columns):
    defaults = {"sample": ["a", "a", "b"], "id": ["p", "q", "p"]}
    return pd.DataFrame(defaults | columns)


UNIPROT = ["sp|P12345|AATM_RABIT", "sp|P12345-2|AATM_RABIT", "tr|A0A024|A0A024_X", "Q9", "own"]


@pytest.mark.parametrize(
    ("ids", "matched"),
    [
        (["P12345", "P12345-2", "A0A024", "Q9", "own"], [0, 1, 2, 3, 4]),
        (UNIPROT[::-1], [4, 3, 2, 1, 0]),
        (["sp|Q9|ANY", "P12345", "sp|P12345|AATM_RABIT"], [2, -1, -1, 0, -1]),
        (["AATM_RABIT", "sp|Q9|x", "tr|Q9|y", "A0A024"], [-1, -1, 3, -1, -1]),
    ],
    ids=["accessions", "ids", "an-id-comes-first", "an-accession-that-two-rows-have"],
)
@pytest.mark.parametrize("key", ["id", "accession", "Entry"])
def test_metadata_is_found_by_id_or_by_accession(tmp_path, ids, matched, key):
    (tmp_path / "meta.tsv").write_text(f"{key}\trow\n" + "".join(f"{name}\tr{i}\n" for i, name in enumerate(ids)))
    records = proteins(sample=["a"] * 5, id=UNIPROT)
    metadata = match_metadata(records, tmp_path / "meta.tsv")
    assert list(metadata.places) == matched
    assert list(metadata.column("row")) == ["" if place < 0 else f"r{place}" for place in matched]


def test_metadata_that_matches_no_record_is_an_error_that_shows_both_sides(tmp_path):
    sheet = tmp_path / "meta.tsv"
    sheet.write_text("Entry\tx\nP1\t1\nP2\t2\nP3\t3\n")
    message = (
        f"{sheet}: 0 of 3 proteins matched: its column `Entry` begins with 'P1' and 'P2', the ids of the proteins with "
        "'p' and 'q'; give each protein's id, or its accession, in that column"
    )
    with pytest.raises(SheetError, match=f"^{re.escape(message)}$"):
        match_metadata(proteins(), sheet)
    sheet.write_text("sample\tid\nz\tp\n")
    with pytest.raises(SheetError, match=r"column `id` begins with 'z, p', the ids of the proteins with 'a, p' and"):
        match_metadata(proteins(), sheet)
    sheet.write_text("id\tx\n")
    with pytest.raises(SheetError, match=r"column `id` begins with nothing"):
        match_metadata(proteins(), sheet)
    assert len(match_metadata(proteins().iloc[:0], sheet).places) == 0  # nothing was embedded


@pytest.mark.parametrize(("found", "level"), [(3, "INFO"), (2, "WARNING")])
def test_the_log_says_how_many_proteins_matched_and_warns_where_some_did_not(tmp_path, caplog, found, level):
    caplog.set_level("INFO")
    (tmp_path / "m.tsv").write_text("Entry\tx\n" + "".join(f"{name}\t1\n" for name in ("p", "q", "r")[:found] + ("z",)))
    match_metadata(proteins(id=["p", "q", "r"]), tmp_path / "m.tsv")
    (line,) = caplog.records
    assert line.levelname == level and line.message == (
        f"metadata: {found} of 3 proteins matched by `Entry` of {tmp_path}/m.tsv; "
        f"1 of its {found + 1} rows belong to none of them (first: z)"
    )


def test_a_whole_id_comes_before_an_accession_as_the_name_of_a_row(tmp_path):
    (tmp_path / "m.tsv").write_text("Entry\tid\taccession\tsample\tx\nq\tp\tz\ta\t1\n")
    found = match_metadata(proteins(), tmp_path / "m.tsv")
    assert list(found.places) == [0, -1, -1] and found.sheet.columns == ["Entry", "accession", "x"]


def test_a_sheet_of_many_columns_is_read_and_a_column_that_stands_twice_named(tmp_path):
    columns = ["id", *(f"c{i}" for i in range(40_000))]
    path = tmp_path / "meta.tsv"
    path.write_text("\t".join(columns) + "\n" + "\t".join(["p"] + ["1"] * 40_000) + "\n")
    assert list(match_metadata(proteins(), path).values("c39999")[[0, 2]]) == [1, 1]
    path.write_text("\t".join([*columns, "c7"]) + "\n")
    with pytest.raises(SheetError, match=r"two columns 'c7'; rename one"):
        read_metadata(path)
    path.write_text("\t".join(columns[1:]) + "\n")
    with pytest.raises(SheetError, match=r"no column `id` in its header \(c0, c1, .*, c9, \.\.\.\)"):
        read_metadata(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"metadata: there is no sheet .*; give a TSV with the column id"),
        ("", r"no column `id` in its header \(\)"),
        ("name\tx\np\t1\n", r"no column `id` in its header \(name, x\)"),
        ("id\tx\np\t1\nq\t2\np\t3\n", r"id 'p' is in more than one row \(1 rows too many\)"),
        ("sample\tid\na\tp\na\tp\n", "sample 'a', id 'p' is in more than one row"),
        ("id\tx\np\n", "line 2: the row 'p' has not as many cells as the header"),
        ("id\tx\tx\n", "two columns 'x'"),
        (b"id\tx\n\xff\t1\n", "cannot be read"),
    ],
)
def test_mistakes_in_the_metadata_are_named(tmp_path, text, message):
    path = tmp_path / "meta.tsv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_metadata(path)


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "-2.5", "+.5", "1e-6", "3.", "0", "0.0"], True),
        (["1", "", "NA", "nan"], True),
        (["9007199254740992"], True),
        (["007", "12"], False),  # the zeros are part of the name
        (["9007199254740993"], False),  # a float64 has not all of its digits
        (["1e999"], False),
        (["inf"], False),
        (["0x1F"], False),
        (["1_000"], False),
        (["", "NA"], False),
        (["1", "one"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_column_has_numbers_only_if_no_cell_changes_as_a_number(tmp_path, cells, numeric):
    names = [f"p{i}" for i in range(len(cells))]
    (tmp_path / "m.tsv").write_text(
        "id\tx\tend\n" + "".join(f"{n}\t{c}\t.\n" for n, c in zip(names, cells, strict=True))
    )
    values = match_metadata(proteins(sample=["a"] * len(names), id=names), tmp_path / "m.tsv").values("x")
    assert (values.dtype.kind == "f") == numeric
    if numeric:
        assert [float(cell) for cell in cells if cell not in ("", "NA", "nan")] == list(values[~np.isnan(values)])
    else:
        assert list(values) == cells
