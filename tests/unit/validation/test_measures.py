"""The measures of the comparison: what is equal has no error, what is wrong a large one, zeros included."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pack, random_sequence
from packed_esm.embedding.device import DTYPES
from packed_esm.model.esm2 import ESM2WithFlashAttention
from packed_esm.outputs.bounds import BOUNDS, tolerance
from packed_esm.outputs.measures import contacts_errors, logits_errors, relative_error, residue_errors
from packed_esm.outputs.table import POOLINGS, RESIDUES, SCALARS
from packed_esm.sequences.tokens import tokenize
from packed_esm.validation.reference import reference_outputs
from packed_esm.validation.tolerance import bounds_of, find_failures

HALF = 40  # residues of half a protein whose map of contacts is damaged


def test_the_relative_error_is_the_difference_by_the_norm_of_what_is_wanted_or_by_the_scale():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]), scale=50) == pytest.approx(0.01)


@pytest.mark.parametrize("scale", [None, 0.0])
def test_against_zeros_equal_values_have_no_error_and_others_an_infinite_one(scale):
    zeros = np.zeros(3, np.float32)
    assert relative_error(-zeros, zeros, scale) == 0
    assert relative_error(np.array([0, 1e-30, 0]), zeros, scale) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_as_far_as_can_be(value):
    want = np.random.default_rng(0).random((30, 30))
    got = want.copy()
    got[3, 4] = value
    assert relative_error(got, want) == np.inf
    errors = residue_errors(got, want)
    assert errors["relative_l2"] == errors["max_abs"] == np.inf
    assert errors["worst_residue"] == 3 and errors["min_residue_cosine"] == -1
    assert logits_errors(got, want)["logits_kl_max"] == np.inf
    assert contacts_errors(got, want) == {
        "contacts_abs_per_residue": np.inf,
        "contacts_precision": 0,
        "contacts_correlation": 0,
    }


def test_contacts_that_are_not_numbers_have_the_worst_value_of_each_measure():
    want = np.random.default_rng(0).random((30, 30))
    got = want.copy()
    got[3, 20] = np.nan
    assert contacts_errors(got, want) == {
        "contacts_abs_per_residue": np.inf,
        "contacts_precision": 0.0,
        "contacts_correlation": 0.0,
    }


def test_a_masked_residue_of_layer_0_is_compared_though_it_is_zero():
    want = np.ones((4, 8))
    want[2] = 0
    assert residue_errors(want, want) == {
        "relative_l2": 0,
        "max_abs": 0,
        "min_residue_cosine": 1,
        "worst_residue": 0,
    }
    got = want.copy()
    got[2, 5] = 1e-6
    assert residue_errors(got, want)["min_residue_cosine"] == 0 and residue_errors(got, want)["worst_residue"] == 2


@pytest.mark.parametrize("residues", [1, 300])
def test_a_standard_deviation_is_measured_against_the_residues_that_it_is_of(residues):
    rows = np.ones((residues + 2, 16), np.float32) * np.linspace(-3, 5, 16, dtype=np.float32)  # all alike
    size, std, mean = float(np.linalg.norm(rows[1])), POOLINGS["std"], POOLINGS["mean"]
    assert std.error(np.zeros(16), rows) == 0
    assert std.error(np.full(16, 1e-3), rows) == pytest.approx(4e-3 / size)
    assert mean.error(np.full(16, 1e-3) + rows[1], rows) == pytest.approx(4e-3 / size, rel=1e-3)
    masked = np.zeros((residues + 2, 16), np.float32)
    assert all(POOLINGS[pooling].error(np.zeros(16), masked) == 0 for pooling in ("mean", "max", "std"))
    assert std.error(np.full(16, 1e-9), masked) == np.inf


def test_a_log_likelihood_near_0_is_measured_against_the_logits():
    tokens = tokenize("ACDEF")
    logits = np.zeros((7, 33), np.float32)
    logits[range(7), tokens] = 30.0

    def error(got, logits):
        return SCALARS["log_likelihood"].errors(got, logits, tokens)["log_likelihood_relative_l2"]

    assert error(0.0, logits) < 1e-12
    assert error(-1.0, logits) > 0.1
    assert error(-np.log(33), np.zeros((7, 33), np.float32)) < 1e-15


@pytest.mark.parametrize("output", [*SCALARS.values(), *RESIDUES.values()], ids=lambda output: output.name)
def test_the_errors_of_an_output_are_its_measures_so_that_each_has_a_bound(output):
    """An error under another name would stand in the table and have no bound."""
    values = np.random.default_rng(0).random((20, 20))
    arguments = (0.5, values, np.full(20, 5)) if output.name in SCALARS else (values, values)
    assert output.errors(*arguments).keys() == {measure.name for measure in output.measures}


def test_the_divergence_is_kullbacks_and_leiblers_of_each_residue():
    want, got = torch.randn(2, 20, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    logs = (torch.log_softmax(x, -1) for x in (got, want))
    each = torch.nn.functional.kl_div(*logs, reduction="none", log_target=True).sum(-1)
    errors = logits_errors(got.numpy(), want.numpy())
    assert errors["logits_kl_max"] == pytest.approx(float(each.max()))
    assert errors["logits_kl_mean"] == pytest.approx(float(each.mean()))
    assert logits_errors((want + 7).numpy(), want.numpy())["logits_kl_max"] < 1e-12  # the same distributions
    assert logits_errors(want.numpy(), want.numpy()) == {"logits_kl_max": 0, "logits_kl_mean": 0}


def failures(errors, dtype):
    table = pd.DataFrame([{"sample": "s", "id": "x", "length": 9, "layer": 6, "bit_equal": True} | errors])
    return find_failures(table, bounds_of(table, tolerance(dtype)), True)


@pytest.fixture(params=["random", "sparse"])
def maps(request, demo):
    """Two proteins of one length, the model's and fair-esm's maps of them: {dtype: maps}, maps.

    The contact head has weights as large as a trained one's, of all heads or of one in ten.
    """
    torch.manual_seed(0)
    regression = demo.contact_head.regression
    with torch.no_grad():
        if request.param == "random":
            regression.weight.normal_(0, 5)
        else:
            regression.weight.uniform_(5, 20).mul_(torch.rand(regression.weight.shape) < 0.1)
        regression.bias.fill_(-4)
    rng = np.random.default_rng(0)
    tokens = [tokenize(random_sequence(2 * HALF, rng)) for _ in range(2)]
    ours = {}
    for dtype in ("fp32", "fp16", "bf16"):
        model = ESM2WithFlashAttention(copy.deepcopy(demo), "cpu", DTYPES[dtype])
        out = model.forward_packed(*pack(tokens), [6], need_logits=True, return_contacts=True)
        ours[dtype] = [one.numpy() for one in out["contacts"]]
    return ours, [reference_outputs(demo, one, [6], contacts=True)["contacts"].numpy() for one in tokens]


def test_our_own_maps_are_in_tolerance(maps):
    ours, theirs = maps
    for dtype, found in ours.items():
        for got, want in zip(found, theirs, strict=True):
            assert failures(contacts_errors(got, want), dtype) == []


def shuffled(contacts):
    order = np.random.default_rng(1).permutation(len(contacts))
    return contacts[np.ix_(order, order)]


def halves_exchanged(contacts):
    return np.roll(contacts, HALF, (0, 1))


def halves_transposed(contacts):
    """The contacts between the halves as if each half were read backwards."""
    between = contacts[:HALF, HALF:]
    return np.block([[contacts[:HALF, :HALF], between.T], [between, contacts[HALF:, HALF:]]])


@pytest.mark.parametrize("damage", [shuffled, halves_exchanged, halves_transposed, None])
def test_maps_of_other_residues_or_of_another_protein_fail_with_every_dtype(maps, damage):
    ours, (want, other) = maps
    for dtype in BOUNDS["relative_l2"]:
        got = other if damage is None else damage(ours.get(dtype, ours["bf16"])[0])
        found = " ".join(failures(contacts_errors(got, want), dtype))
        assert "contacts_correlation" in found and "contacts_precision" in found, dtype


def test_a_map_that_is_right_but_for_its_level_fails(maps):
    ours, (want, _) = maps
    for dtype, maps_of_dtype in ours.items():
        assert "contacts_abs_per_residue" in failures(contacts_errors(maps_of_dtype[0] + 0.02, want), dtype)[0]


@pytest.mark.parametrize("residues", [1, 2, 6, 10])
def test_of_a_short_protein_and_of_a_flat_map_only_the_difference_is_compared(residues):
    rng = np.random.default_rng(0)
    for want in (rng.random((residues, residues)), 0.03 + 1e-6 * rng.random((50, 50))):
        errors = contacts_errors(want + 1e-5, want)
        assert errors["contacts_precision"] is errors["contacts_correlation"] is None
        assert errors["contacts_abs_per_residue"] == pytest.approx(1e-5 * len(want))
        assert failures(errors, "bf16") == [] and failures(contacts_errors(want + 1, want), "bf16") != []


def test_pairs_that_are_as_likely_may_change_places():
    want = np.full((40, 40), 0.01)
    want[:20, 20:] = 1.0
    got = want * np.linspace(0.999999, 1, 40)
    assert contacts_errors(got, want)["contacts_precision"] == 1
