"""Weights that are streamed: the bits of resident ones, at every output, and each layer copied once for all packs."""

import copy

import pytest
import torch
from conftest import pack, random_esm1b, random_esm2, random_tokens
from packed_esm.errors import OptionError
from packed_esm.model.esm2 import ESM2WithFlashAttention, PackInput
from packed_esm.model.layers import LAYERS, FileLayers, HostLayers

CPU = torch.device("cpu")
PACKS = ([60, 3, 128], [5], [90, 91], [200], [17, 17, 17])


def inputs(masked=()):
    return [PackInput(*pack(random_tokens(lengths, seed, masked))) for seed, lengths in enumerate(PACKS)]


def model_of(base, weights, dtype=torch.float32, attention="auto"):
    return ESM2WithFlashAttention(copy.deepcopy(base), "cpu", dtype, attention, weights)


def same(one, other):
    """Assert that the outputs of two packs have the same bits."""
    assert one.keys() == other.keys()
    assert [*one["representations"]] == [*other["representations"]]
    for layer, rows in one["representations"].items():
        assert torch.equal(rows, other["representations"][layer]), layer
    for name in one.keys() - {"representations"}:
        assert all(map(torch.equal, one[name], other[name])), name


@pytest.mark.parametrize("weights", ["host", "file"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [random_esm2, random_esm1b])
def test_streamed_weights_give_the_bits_of_resident_ones_at_every_output(weights, dtype, make):
    base = make(num_layers=3)
    torch.nn.init.normal_(base.contact_head.regression.weight)
    resident, streamed = model_of(base, "resident", dtype), model_of(base, weights, dtype)
    packs = inputs(masked=(0,))
    options = {"repr_layers": [0, 2, 3], "need_logits": True, "return_contacts": True}
    expected = [resident.forward_packed(*one[:3], **options) for one in packs]
    for _ in range(2):  # the second time what is in the slots comes from the first
        for want, got in zip(expected, streamed.forward_packs(packs, **options), strict=True):
            same(want, got)
    rows = [one._replace(logits_at=torch.tensor([1, 2])) for one in packs]
    for one, got in zip(rows, streamed.forward_packs(rows, ()), strict=True):
        same(resident.forward_packed(*one[:3], (), logits_at=one.logits_at), got)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("weights", ["host", "file"])
def test_calls_that_end_at_any_layer_follow_each_other(weights, layers):
    base = random_esm2(layers)
    resident, streamed = model_of(base, "resident"), model_of(base, weights)
    packs = inputs()[:2]
    for last in [layers, 0, 1, layers, layers - 1, layers - 1, 1, layers]:
        for one, got in zip(packs, streamed.forward_packs(packs, [last]), strict=True):
            same(resident.forward_packed(*one[:3], [last]), got)


class Copied:
    """Count the copies of each layer, and say which of them is being computed."""

    def __init__(self, layers):
        self.of, start = [], layers._start_copy
        layers._start_copy = lambda slot, layer: (self.of.append(layer), start(slot, layer))[1]


@pytest.mark.parametrize("kind", [HostLayers, FileLayers])
def test_each_layer_is_copied_once_for_all_packs_and_while_the_one_before_runs(kind):
    blocks = random_esm2(5).layers
    from packed_esm.model.families.esm2.block import TransformerBlock

    layers = kind(lambda i: TransformerBlock(blocks[i], CPU, torch.float32), 5, CPU)
    copied = Copied(layers)
    for call in range(3):
        for index, _ in enumerate(layers.first(5)):
            assert copied.of == [*range(5)] * call + [*range(index + 1), (index + 1) % 5]
    assert sum(1 for _ in layers.first(0)) == 0


@pytest.mark.parametrize("weights", ["host", "file"])
def test_after_an_error_in_the_middle_the_next_call_begins_anew(weights):
    base = random_esm2(3)
    model, (one, *_) = model_of(base, weights), inputs()
    want = model_of(base, "resident").forward_packed(*one[:3])
    forward = model.layers._slots[1].block.forward

    def full(*arguments):
        raise torch.OutOfMemoryError("simulated")

    model.layers._slots[1].block.forward = full
    with pytest.raises(torch.OutOfMemoryError):
        model.forward_packed(*one[:3])
    for slot in model.layers._slots:
        slot.block.forward = forward if slot.block.forward is full else slot.block.forward
    same(want, model.forward_packed(*one[:3]))


@pytest.mark.parametrize("unreadable", [0, 1])
def test_a_layer_that_could_not_be_read_is_read_again(unreadable):
    """Layer 0 is read at the end of the call before the one that needs it."""
    base = random_esm2(3)
    model, (one, *_) = model_of(base, "file"), inputs()
    want = model.forward_packed(*one[:3])
    make, failures = model.layers._make, [OSError("simulated")]

    def unreadable_once(layer):
        if layer == unreadable and failures:
            raise failures.pop()
        return make(layer)

    model.layers._make = unreadable_once
    with pytest.raises(OSError, match="simulated"):
        for _ in range(2):
            model.forward_packed(*one[:3])
    same(want, model.forward_packed(*one[:3]))


def test_streamed_weights_leave_the_loaded_model_and_its_memory_alone():
    base = random_esm2(4)
    before = copy.deepcopy(base.state_dict())
    model = ESM2WithFlashAttention(base, "cpu", torch.float16, weights="host")
    model.forward_packs(inputs())
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    assert len(model.layers._slots) == 2 and len(model.layers._host) == 4
    assert {one.untyped_storage().data_ptr() for one in model.layers._slots[0].block.parameters()} == {
        model.layers._slots[0].memory.data_ptr()
    }


def test_padded_attention_streams_too_except_in_fp32_which_is_fair_esms_own_forward():
    base, (one, *_) = random_esm2(3), inputs()
    want = model_of(base, "resident", torch.bfloat16, "padded").forward_packed(*one[:3])
    same(want, model_of(base, "host", torch.bfloat16, "padded").forward_packed(*one[:3]))
    with pytest.raises(OptionError, match="weights: attention: padded in fp32 .* use attention: auto"):
        model_of(base, "host", torch.float32, "padded")


def test_the_names_of_the_ways_are_those_that_tests_cover():
    assert set(LAYERS) == {"resident", "host", "file"}
