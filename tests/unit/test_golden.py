"""Bits of every output of the shipped model are those of tests/golden.json, unless `BITS` was raised."""

import golden
import numpy as np
import pytest
from packed_esm.outputs.table import INCLUDE, POOLINGS, RESIDUES
from packed_esm.store.settings import BITS

ONE = {"mean_6": np.linspace(1, 2, 100, dtype=np.float32)}
OTHER_BITS = {"mean_6": np.nextafter(ONE["mean_6"], np.float32(9))}
OTHER_VALUES = {"mean_6": ONE["mean_6"] * np.float32(1 + 1e-5)}


@pytest.fixture(scope="module")
def outputs():
    return golden.arrays()


def test_the_file_is_of_these_bits():
    assert golden.read()["bits"] == BITS, "run `python tests/golden.py`"


def test_no_bit_of_an_output_changes_without_a_new_number(outputs, capsys):
    made_with, arrays = outputs
    differing = golden.differing_bits(golden.read(), made_with, arrays)
    if differing is None:
        with capsys.disabled():
            print(f"\ntests/golden.json knows no torch {made_with}: values were compared, bits were not checked")
    assert not differing and not golden.differing_values(golden.read(), arrays), "raise BITS, or correct the change"


def test_every_output_has_its_digest_and_values(outputs):
    file, (made_with, arrays) = golden.read(), outputs
    assert arrays.keys() == file["values"].keys() == file["digests"].get(made_with, arrays).keys(), "run golden.py"
    asked = {f"{pooling}_{layer}" for pooling in POOLINGS for layer in golden.LAYERS} | {*INCLUDE, *RESIDUES}
    assert asked <= arrays.keys()
    digests = golden.digests_of(arrays)
    assert len({digests[name] for name in asked}) == len(asked)  # no output is another one's copy


def test_other_bits_are_refused_until_the_number_is_raised():
    file = golden.updated({"bits": 1, "digests": {}, "values": {}}, "2.9", ONE, 1)
    assert golden.updated(file, "2.9", ONE, 1) == file
    with pytest.raises(SystemExit, match="other bits of mean_6; raise BITS"):
        golden.updated(file, "2.9", OTHER_BITS, 1)
    raised = golden.updated(file, "2.9", OTHER_BITS, 2)
    assert raised["bits"] == 2 and raised["digests"].keys() == {"2.9"}
    assert golden.differing_bits(raised, "2.9", OTHER_BITS) == [] and golden.differing_bits(raised, "2.9", ONE)


def test_another_torch_is_compared_by_values_and_gets_digests_of_its_own():
    file = golden.updated({"bits": 1, "digests": {}, "values": {}}, "2.9", ONE, 1)
    assert golden.differing_bits(file, "3.0", OTHER_BITS) is None and not golden.differing_values(file, OTHER_BITS)
    assert golden.updated(file, "3.0", OTHER_BITS, 1)["digests"].keys() == {"2.9", "3.0"}
    with pytest.raises(SystemExit, match="other bits of mean_6"):
        golden.updated(file, "3.0", OTHER_VALUES, 1)


def test_a_new_output_needs_no_new_number():
    file = golden.updated({"bits": 1, "digests": {}, "values": {}}, "2.9", ONE, 1)
    more = golden.updated(file, "2.9", ONE | {"sum_6": OTHER_VALUES["mean_6"]}, 1)
    assert more["values"].keys() == more["digests"]["2.9"].keys() == {"mean_6", "sum_6"}
