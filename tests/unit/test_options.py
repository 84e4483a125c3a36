"""An option that takes one of some words: another word is refused by key, value and what it may be."""

from functools import partial
from pathlib import Path

import pytest
import torch
from packed_esm.embedding.device import choose_device, choose_dtype
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import OptionError
from packed_esm.model.backends import choose_backend
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.records import LengthLimit
from packed_esm.sequences.translation import codon_table, translate_fasta

CPU = torch.device("cpu")
FASTA = Path("a.fasta")
CHUNK = partial(chunk_samples, [("s", FASTA)], [Path("1.fasta")], Path("m"), Path("r"), Path("c"))
EMBED = partial(embed_fasta, FASTA, Path("o"), Path("s"))
TRANSLATE = partial(translate_fasta, FASTA, Path("o"), Path("t"))


@pytest.mark.parametrize(
    ("call", "key", "value", "allowed"),
    [
        (lambda word: LengthLimit(5, word), "long_proteins.action", "rejct", "reject, truncate, split"),
        (lambda word: CHUNK(on_duplicate_id=word), "on_duplicate_id", "fial", "fail, suffix"),
        (lambda word: CHUNK(on_invalid=word), "on_invalid", "Replace", "reject, fail, replace"),
        (lambda word: TRANSLATE(on_duplicate_id=word), "on_duplicate_id", "sufix", "fail, suffix"),
        (lambda word: TRANSLATE(on_invalid=word), "on_invalid", "rejected", "reject, fail, replace"),
        (lambda word: TRANSLATE(ambiguous_codons=word), "translation.ambiguous_codons", "skipp", "resolve, skip"),
        (lambda word: codon_table(1, word), "translation.ambiguous_codons", "", "resolve, skip"),
        (lambda word: EmbedOptions(FASTA, on_nonfinite=word), "on_nonfinite", "recomput", "recompute, fail"),
        (lambda word: EMBED(EmbedOptions(FASTA), residue_dtype=word), "residue_dtype", "float64", "float16, float32"),
        (choose_device, "device", "gpu", "auto, cpu, cuda"),
        (lambda word: choose_dtype(word, CPU), "dtype", "fp61", "auto, fp32, fp16, bf16, fp8"),
        (lambda word: choose_backend(word, CPU, torch.float32), "attention", "spda", "auto, triton, .*, sdpa, padded"),
    ],
)
def test_a_misspelt_word_is_refused_by_its_key_and_leaves_nothing(tmp_path, monkeypatch, call, key, value, allowed):
    monkeypatch.chdir(tmp_path)
    FASTA.write_text(">a\nATGGCC\n>a\nJ\n")
    with pytest.raises(OptionError, match=f"^{key}: '{value}' is not one of {allowed}$"):
        call(value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.fasta"]
