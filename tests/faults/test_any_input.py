"""Any text at all: each record is accounted for, each refusal is a message. Bytes: fuzz_fasta.py."""

import gzip
import string

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packed_esm.planning.config import check, read_config
from packed_esm.planning.samples import read_sample_sheet
from packed_esm.sequences.options import ON_DUPLICATE_ID, ON_INVALID

from .any_input import check_any_bytes

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PROPERTIES = yaml.safe_load(SCHEMA.read_text())["properties"]
SAMPLES_SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/samples.schema.yaml").read_text())
ALWAYS_THE_SAME = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""])
HEADERS = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: ">" + text)
SEQUENCES = st.lists(st.sampled_from([*"ACDEFGHIKLMNPQRSTVWYXBUZOJacd*.- \t1<>", "<mask>"]), max_size=12).map("".join)
LINES = st.lists(
    st.tuples(st.one_of(HEADERS, SEQUENCES, st.sampled_from([">a", ">a b", ">a_2"])), LINE_ENDS), max_size=12
)
TEXTS = LINES.map(lambda lines: "".join(line + end for line, end in lines).encode("utf-8", "surrogatepass"))


@ALWAYS_THE_SAME
@given(
    data=st.one_of(TEXTS, TEXTS.map(gzip.compress), st.binary(max_size=60)),
    on_invalid=st.sampled_from(ON_INVALID),
    on_duplicate_id=st.sampled_from(ON_DUPLICATE_ID),
)
@example(data=b">\x1c\nM\x85V\n>a\x0bb\nMK\n", on_invalid="reject", on_duplicate_id="fail")
@example(data=b'>"\nM1\n>"a\tb\nM2\n', on_invalid="reject", on_duplicate_id="fail")
def test_every_record_of_any_text_is_accounted_for(tmp_path, data, on_invalid, on_duplicate_id):
    check_any_bytes(tmp_path, data, on_invalid, on_duplicate_id)


CELLS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["sample", "fasta", "fasta ", "s", "a/b", "NA", '"', "#x", "", " "]
)
SHEETS = st.lists(st.lists(CELLS, max_size=3).map("\t".join), max_size=5).map("\n".join)


@ALWAYS_THE_SAME
@given(
    sheet=st.one_of(SHEETS, SHEETS.map(lambda rows: "sample\tfasta\n" + rows)).map(str.encode) | st.binary(max_size=40)
)
def test_any_sample_sheet_is_read_as_it_stands_or_refused_by_name(tmp_path, sheet):
    path = tmp_path / "samples.tsv"
    path.write_bytes(sheet)
    try:
        table = read_sample_sheet(path)
        for line, row in zip(table.index, table.to_dict("records"), strict=True):
            check(row, SAMPLES_SCHEMA, f"{path}, line {line}")
    except ValueError as error:
        assert str(path) in str(error)
        return
    lines = sheet.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line, row in zip(table.index, table.itertuples(index=False), strict=True):
        cells = [cell.strip() for cell in lines[line - 1].split("\t")]
        assert cells[: len(row)] == list(row) and not any(cells[len(row) :])
        assert row.sample[0] in string.ascii_letters + string.digits and "/" not in row.sample


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=6) | st.sampled_from(["auto", "[0, 1]", "[a", "{", "1e-5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sequences", "seed", "max_relative_l2", "x"]), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@ALWAYS_THE_SAME
@given(config=st.dictionaries(st.sampled_from([*PROPERTIES, "modle", "window"]), VALUES, max_size=3))
def test_any_config_is_taken_or_refused_by_its_key(config):
    try:
        settings = read_config(config, SCHEMA)
    except ValueError as error:
        assert str(error).startswith("config") and (any(key in str(error) for key in config))
        return
    assert set(settings) == set(PROPERTIES)
    for key in ("layers", "pooling", "reuse"):
        assert isinstance(settings[key], tuple)


@pytest.mark.parametrize("value", ["[", "{a: [", "\t- x", "&a *b"])
def test_text_that_is_no_yaml_is_refused_by_its_key(value):
    with pytest.raises(ValueError, match="config, layers"):
        read_config({"layers": value}, SCHEMA)
