"""Names of datasets and files: any header gives one that HDF5 and file systems take, and no two are the same."""

from urllib.parse import unquote

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_esm.store.names import NAME_BYTES, dataset_names, file_names

HEADERS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300) | st.sampled_from(
    ["", ".", "..", "a/b", "a%2Fb", "%", "%2", "é" * 200, "e\u0301", "é", "É", "x~2", "x", "X", "/" * 100]
)


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["sp|P69905|HBA_HUMAN", "tr|A0A024R161|A0A024R161_HUMAN"], ["P69905", "A0A024R161"]),
        (["sp|P69905-2|HBA_HUMAN"], ["P69905-2"]),
        (["sp|P69905|HBA_HUMAN", "sp|P69905|HBA_PANTR"], ["P69905", "sp|P69905|HBA_PANTR"]),
        (["sp|P69905|HBA_HUMAN", "P69905"], ["sp|P69905|HBA_HUMAN", "P69905"]),
        (["gi|123|ref", "sp|p|q", "sp|P69905"], ["gi|123|ref", "sp|p|q", "sp|P69905"]),
        (["a/b", "a%2Fb", "/", "50%", "%41"], ["a%2Fb", "a%252Fb", "%2F", "50%", "%2541"]),
        (["", ".", "..", "./x"], ["%00", "%2E", "..", ".%2Fx"]),
        (["naïve", 'it"s', "a\tb", "a\u202eb"], ["naïve", 'it"s', "a%09b", "a%E2%80%AEb"]),
    ],
)
def test_a_dataset_is_named_by_its_accession_or_escaped_id(ids, names):
    assert dataset_names(ids) == names


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        (["sp|P69905|HBA_HUMAN Hemoglobin OS=Homo sapiens"], ["sp|P69905|HBA_HUMAN Hemoglobin OS=Homo sapiens.pt"]),
        (["a/b", "../x", ".hidden", ""], ["a%2Fb.pt", "%2E.%2Fx.pt", "%2Ehidden.pt", "%00.pt"]),
        (["50% of a", "Blöße \x7f"], ["50% of a.pt", "Blöße %7F.pt"]),
        (["x", "x", "X", "x~2", "x"], ["x.pt", "x~2.pt", "X~3.pt", "x~2~2.pt", "x~4.pt"]),
        (["é", "e\u0301"], ["é.pt", "e\u0301~2.pt"]),
    ],
)
def test_a_file_is_named_by_its_escaped_header(headers, names):
    assert file_names(headers) == names


def test_a_long_header_is_cut_between_characters_and_ends_in_a_digest():
    headers = ["é" * 5000, "é" * 5001, "é" * 5000, "é" * 126]
    names = file_names(headers)
    assert all(len(name.encode()) <= 255 for name in names) and len(set(names)) == 4
    assert names[0].startswith("é" * 110) and names[2].endswith("~2.pt") and names[3] == "é" * 126 + ".pt"
    assert file_names(headers[1:2]) == names[1:2]


@settings(max_examples=100, deadline=None)
@given(st.lists(HEADERS, unique=True, max_size=12))
def test_any_ids_are_names_at_the_root_of_an_hdf5_file(ids):
    names = dataset_names(ids)
    assert [unquote(name) for name, text in zip(names, ids, strict=True) if text] == [text for text in ids if text]
    with h5py.File("names", "w", driver="core", backing_store=False) as file:
        for value, name in enumerate(names):
            file.create_dataset(name, data=value)
        assert {name: dataset[()] for name, dataset in file.items()} == {name: i for i, name in enumerate(names)}


@settings(max_examples=100, deadline=None)
@given(st.lists(HEADERS, max_size=12))
def test_any_headers_are_names_of_files_in_one_folder(tmp_path_factory, headers):
    folder = tmp_path_factory.mktemp("names")
    names = file_names(headers)
    for value, name in enumerate(names):
        assert len(name.encode()) <= NAME_BYTES and name[0] not in "." and name.isprintable()
        (folder / name).write_text(str(value))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: str(i) for i, name in enumerate(names)}
    assert len({name.casefold() for name in names}) == len(names)


def test_a_hundred_thousand_equal_headers_get_names_of_their_own():
    assert len(set(file_names(["protein"] * 100_000))) == 100_000
