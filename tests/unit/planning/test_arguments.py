"""The arguments of the programs: what the programs read from them is what the configuration says."""

import argparse
import importlib
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT
from packed_esm.embedding.options import EmbedOptions, RepeatOptions, StorageOptions
from packed_esm.errors import OptionError
from packed_esm.planning import arguments
from packed_esm.planning.config import keys, read_config
from packed_esm.sequences.options import LongProteins, RecordOptions, TranslationOptions
from packed_esm.validation.tolerance import ValidationOptions
from packed_esm.variants.options import VariantOptions

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
OTHERS = {  # a configuration in which no option has its default
    "on_invalid": "replace",
    "on_duplicate_id": "suffix",
    "max_record_residues": 70_000,
    "translation": {"genetic_code": 4, "window": "none", "ambiguous_codons": "skip"},
    "model": "-odd name.pt",
    "layers": [-2, 0],
    "pooling": ["max", "std"],
    "include": ["logits"],
    "long_proteins": {"max_length": 60, "action": "split", "overlap": 20},
    "device": "cpu",
    "dtype": "bf16",
    "attention": "sdpa",
    "weights": "streamed",
    "tokens_per_pack": 512,
    "on_nonfinite": "fail",
    "include_dtype": "float16",
    "contact_maps": "triangle",
    "pooled_dtype": "float16",
    "variant_scores": ["pseudo_log_likelihood"],
    "validation": {
        "sequences": 4,
        "seed": 7,
        "max_relative_l2": 1e-5,
        "min_residue_cosine": 0.5,
        "repeat": 0.5,
    },
}
EMBEDDING = EmbedOptions("-odd name.pt", (-2, 0), ("max", "std"), ("logits",), "cpu", "bf16", "sdpa", 512, "fail")
READ = [
    (arguments.translation_arguments, TranslationOptions(4, None, "skip")),
    (arguments.translation_arguments, RecordOptions("replace", "suffix", 70_000)),
    (arguments.chunk_arguments, RecordOptions("replace", "suffix", 70_000)),
    (arguments.chunk_arguments, LongProteins(60, "split", 20)),
    (arguments.embedding_arguments, EMBEDDING),
    (arguments.embedding_arguments, LongProteins(60, "split", 20)),
    (arguments.repeat_arguments, RepeatOptions(0.5)),
    (arguments.storage_arguments, StorageOptions("float16", "float16", "triangle", "float16")),
    (arguments.validation_arguments, ValidationOptions(4, 7, 1e-5, 0.5)),
    (arguments.variant_arguments, VariantOptions(("pseudo_log_likelihood",))),
    (arguments.variant_arguments, LongProteins(60, "split", 20)),
]
NAMES = [f"{function.__name__}, {type(expected).__name__}" for function, expected in READ]


def settings(**config):
    return read_config(config, SCHEMA)


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    return importlib.import_module("_options")


def parsed(flags, given, group):
    """Return the options that a program reads from arguments, of which other groups may have some."""
    parser = argparse.ArgumentParser()
    flags.add_options(parser, group)
    return flags.options_from(parser.parse_known_args(given)[0], group)


@pytest.mark.parametrize(
    ("function", "expected"), READ, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_a_program_reads_what_the_configuration_says(flags, function, expected):
    assert parsed(flags, function(settings(**OTHERS)), type(expected)) == expected


@pytest.mark.parametrize(
    ("function", "expected"), READ, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_without_a_configuration_a_program_reads_its_own_defaults(flags, function, expected):
    group = type(expected)
    without_defaults = {"model": "demo"} if group is EmbedOptions else {}
    assert parsed(flags, function(settings()), group) == group(**without_defaults)


def test_where_the_weights_are_is_an_argument_of_its_own_which_no_value_depends_on(flags):
    given = arguments.placement_arguments(settings(**OTHERS))
    assert given == ["--weights=streamed"] and arguments.placement_arguments(settings()) == ["--weights=auto"]
    assert parsed(flags, [*arguments.embedding_arguments(settings(**OTHERS)), *given], EmbedOptions) == replace(
        EMBEDDING, weights="streamed"
    )
    for function in (arguments.embedding_arguments, arguments.variant_arguments):
        assert function(settings(**OTHERS)) == function(settings(**OTHERS | {"weights": "auto"}))


def test_those_options_are_all_but_the_keys_that_only_the_rules_read():
    groups = dict.fromkeys(type(expected) for _, expected in READ)
    of_rules = {
        "samples",
        "input",
        "per_residue",
        "container",
        "residue_files",
        "rows_per_file",
        "keep_chunks",
        "formats",
        "name",
        "reuse",
        "chunks",
        "residues_per_chunk",
    }
    of_rules |= {"metadata", "color_by", "variants"}
    assert set(arguments.keys_of(*groups)) == set(keys(yaml.safe_load(SCHEMA.read_text()))) - of_rules
    changed, default = settings(**OTHERS), settings()
    for key in arguments.keys_of(*groups):
        assert arguments.setting(changed, key) != arguments.setting(default, key), key


def test_windows_are_told_to_the_embedding_only_where_proteins_are_split():
    for long_proteins in ({}, {"max_length": 60}, {"max_length": 60, "action": "truncate"}, {"action": "split"}):
        given = arguments.embedding_arguments(settings(long_proteins=long_proteins))
        assert not [text for text in given if "max-length" in text or "overlap" in text]


def test_a_length_that_is_not_limited_is_not_told_to_the_chunks():
    assert "--overlap=20" not in arguments.chunk_arguments(settings(long_proteins={"overlap": 20}))


def test_only_the_chunks_of_nucleotides_are_translations():
    assert arguments.chunk_arguments(settings(input="nucleotide"))[-1] == "--translated"
    assert "--translated" not in arguments.chunk_arguments(settings())


def test_an_overlap_as_long_as_a_window_stops_before_anything_runs():
    wrong = settings(long_proteins={"max_length": 60, "action": "split", "overlap": 60})
    with pytest.raises(OptionError, match="long_proteins.overlap: 60 must be at least 0 and less than max_length, 60"):
        arguments.embedding_arguments(wrong)


def test_samples_and_residue_files_are_told_with_their_names_and_no_path_is_taken_for_an_option():
    fasta, parquet = {"s": "-s.fasta", "t": "t.fasta"}, {"s": "s.parquet", "t": "t.parquet"}
    asked = arguments.sample_arguments(["s", "t"], fasta, parquet)
    assert asked == ["--sample", "s", "./-s.fasta", "s.parquet", "t", "t.fasta", "t.parquet"]
    assert arguments.residue_arguments({"logits": "-l.h5"}) == ["--residues", "logits", "./-l.h5"]
    of_samples = {("s", "logits"): "l.h5", ("t", "logits"): "m.h5"}
    assert arguments.residue_arguments(of_samples) == ["--residues", "s", "logits", "l.h5", "t", "logits", "m.h5"]
    assert arguments.residue_arguments({}) == []


def test_the_dtype_of_representations_is_told_where_they_are_kept():
    assert not any("residue-dtype" in word for word in arguments.storage_arguments(settings()))
    assert arguments.storage_arguments(settings(per_residue="int8", pooled_dtype="float16")) == [
        *("--residue-dtype", "int8", "--include-dtype=float32", "--contact-maps=square", "--pooled-dtype=float16")
    ]


def test_scores_of_variants_are_told_the_options_of_the_model_but_not_those_of_embeddings():
    given = arguments.variant_arguments(settings(**OTHERS))
    assert {"--dtype=bf16", "--tokens-per-pack=512", "--model=-odd name.pt"} <= set(given)
    assert not {"--layers", "--pooling", "--include"} & set(given)
