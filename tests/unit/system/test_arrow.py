"""Arrow arrays that are built without `pyarrow.array` are the same arrays."""

import numpy as np
import pyarrow as pa
import pytest
from packed_esm.system.arrow import array_of_numbers, array_of_texts, bytes_of_texts


@pytest.mark.parametrize(
    "values",
    [np.empty(0, np.int32), np.arange(10, dtype=np.uint32)[::2], np.linspace(0, 1, 7, dtype=np.float32)],
    ids=["none", "every second", "floats"],
)
def test_numbers_are_those_of_pyarrow(values):
    array = array_of_numbers(values)
    array.validate(full=True)
    assert array.equals(pa.array(values)) and array.type == pa.array(values).type


@pytest.mark.parametrize("values", [[], ["SQ.a", "", "SQ.b"], ("ä€😀",)], ids=["none", "empty", "unicode"])
def test_texts_are_those_of_pyarrow(values):
    array = array_of_texts(values)
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("texts", [[], ["", ""], ["SQ.a", "SQ.b", "SQ.c"], ["a", "bcd", ""], ["é", "ab"]])
def test_bytes_of_texts_are_those_of_each_also_of_a_part(texts):
    want = [text.encode() for text in texts]
    assert bytes_of_texts(array_of_texts(texts)) == want
    assert bytes_of_texts(array_of_texts(["first", *texts, "last"])[1 : len(texts) + 1]) == want
