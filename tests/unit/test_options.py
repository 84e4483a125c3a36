"""Options: a wrong word is refused by key, value and what it may be; all copies of the schema agree with it."""

import importlib
from dataclasses import MISSING
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from packed_esm.embedding.device import DTYPES, choose_device, choose_dtype
from packed_esm.embedding.options import EmbedOptions, RepeatOptions, StorageOptions
from packed_esm.errors import OptionError
from packed_esm.model.backends import BACKENDS, choose_backend
from packed_esm.options import Options, options_of
from packed_esm.outputs.table import RESIDUE_DTYPES
from packed_esm.planning.config import keys
from packed_esm.sequences.options import LongProteins, RecordOptions, TranslationOptions
from packed_esm.sequences.translation import codon_table
from packed_esm.validation.tolerance import ValidationOptions
from packed_esm.variants.options import VariantOptions

CPU = torch.device("cpu")
FASTA = Path("a.fasta")


@pytest.mark.parametrize(
    ("call", "key", "value", "allowed"),
    [
        (lambda word: LongProteins(5, word), "long_proteins.action", "rejct", "reject, truncate, split"),
        (lambda word: RecordOptions(on_duplicate_id=word), "on_duplicate_id", "fial", "fail, suffix"),
        (lambda word: RecordOptions(on_invalid=word), "on_invalid", "Replace", "reject, fail, replace"),
        (
            lambda word: TranslationOptions(ambiguous_codons=word),
            "translation.ambiguous_codons",
            "skipp",
            "resolve, skip",
        ),
        (lambda word: EmbedOptions(FASTA, poolings=("mean", word)), "pooling", "median", "mean, max, std, bos, eos"),
        (lambda word: EmbedOptions(FASTA, include=[word]), "include", "logit", "log_likelihood, .*, masked_marginals"),
        (lambda word: EmbedOptions(FASTA, device=word), "device", "gpu", "auto, cpu, cuda, mps"),
        (lambda word: codon_table(1, word), "translation.ambiguous_codons", "", "resolve, skip"),
        (lambda word: EmbedOptions(FASTA, on_nonfinite=word), "on_nonfinite", "recomput", "recompute, fail"),
        (lambda word: StorageOptions(word), "residue_dtype", "float64", "float16, float32, int8"),
        (choose_device, "device", "gpu", "auto, cpu, cuda, mps"),
        (lambda word: choose_dtype(word, CPU), "dtype", "fp61", "auto, fp32, fp16, bf16, int8"),
        (lambda word: choose_backend(word, CPU, torch.float32), "attention", "spda", "auto, triton, .*, sdpa, padded"),
    ],
)
def test_a_misspelt_word_is_refused_by_its_key_and_leaves_nothing(tmp_path, monkeypatch, call, key, value, allowed):
    monkeypatch.chdir(tmp_path)
    FASTA.write_text(">a\nATGGCC\n>a\nJ\n")
    with pytest.raises(OptionError, match=f"^{key}: '{value}' is not one of {allowed}$"):
        call(value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.fasta"]


SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
GROUPS = (
    RecordOptions,
    TranslationOptions,
    LongProteins,
    EmbedOptions,
    StorageOptions,
    RepeatOptions,
    ValidationOptions,
    VariantOptions,
)
OPTIONS = {option.key: (option, default) for group in GROUPS for option, default in options_of(group).values()}
KINDS = {"string": str, "integer": int, "number": float}


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_has_the_default_the_words_the_type_and_the_help_of_the_schema(key):
    option, default = OPTIONS[key]
    rule = keys(SCHEMA)[key]
    assert option.help == rule["description"].removesuffix(".")
    if default is not MISSING:
        shown = option.none if default is None else list(default) if isinstance(default, tuple) else default
        assert shown == rule["default"] and type(shown) is type(rule["default"])
    assert isinstance(default, tuple) == (rule.get("type") == "array")
    value = rule.get("items", rule)
    none, value = (value["oneOf"][0]["const"], value["oneOf"][1]) if "oneOf" in value else (None, value)
    assert option.none == none
    words = value.get("enum", [])
    assert sorted(option.words) == sorted(word for word in words if isinstance(word, str))
    assert option.kind is (type(words[0]) if words else KINDS[value["type"]])


def test_an_overlap_as_long_as_a_window_is_refused_where_there_are_windows():
    for overlap in (60, -1):
        with pytest.raises(OptionError, match=f"long_proteins.overlap: {overlap} must be at least 0 and less than"):
            LongProteins(60, "split", overlap)
        assert LongProteins(60, "truncate", overlap).windows is None


def test_every_group_of_options_is_compared():
    assert set(GROUPS) == set(Options.__subclasses__())


def test_the_words_of_the_schema_are_those_that_the_code_knows():
    words = {key: rule.get("items", rule).get("enum") for key, rule in keys(SCHEMA).items()}
    assert words["dtype"] == ["auto", *DTYPES] and set(words["attention"]) == {"auto", *BACKENDS}
    assert words["per_residue"] == ["none", *RESIDUE_DTYPES]


def test_the_report_is_coloured_by_the_default_of_the_schema(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    parser = importlib.import_module("make_report").build_parser()
    assert parser.get_default("color_by") == keys(SCHEMA)["color_by"]["default"]
