"""Row 1 of the numerics: tokens are those of fair-esm's own alphabet."""

import numpy as np
import pytest
from conftest import RESIDUES, random_sequence
from esm.data import Alphabet
from packed_esm.tokenize import CLS, EOS, FILLER, MASK, PAD, tokenize

ALPHABET = Alphabet.from_architecture("ESM-1b")


def test_special_tokens_are_those_of_fair_esm():
    assert (
        ALPHABET.cls_idx,
        ALPHABET.padding_idx,
        ALPHABET.eos_idx,
        ALPHABET.mask_idx,
    ) == (CLS, PAD, EOS, MASK)
    assert ALPHABET.get_tok(FILLER) == "A"


@pytest.mark.parametrize("seed", range(20))
def test_tokens_are_those_of_the_batch_converter(seed):
    rng = np.random.default_rng(seed)
    sequence = random_sequence(int(rng.integers(1, 400)), rng, RESIDUES)
    _, _, tokens = ALPHABET.get_batch_converter()([("x", sequence)])
    assert tokenize(sequence).tolist() == tokens[0].tolist()


@pytest.mark.parametrize("letter", list("J*1jm \t\0é中") + ["<mask>"])
def test_what_is_no_residue_is_named_with_its_position(letter):
    with pytest.raises(ValueError, match="at position 3 is no residue token"):
        tokenize("MK" + letter + "V")


def test_a_sequence_without_residues_is_an_error():
    with pytest.raises(ValueError, match="no residue"):
        tokenize("")
