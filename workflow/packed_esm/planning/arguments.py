"""The arguments of the programs, from the settings of a run."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..embedding.options import OF_NO_VALUE, EmbedOptions, RepeatOptions, StorageOptions
from ..options import Options, options_of
from ..sequences.options import LongProteins, RecordOptions, TranslationOptions
from ..validation.tolerance import ValidationOptions
from ..variants.options import OF_EMBEDDINGS, VariantOptions


def translation_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of translate.py for translation."""
    return arguments(settings, TranslationOptions, RecordOptions)


def chunk_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of chunk_fasta.py for records and long proteins."""
    long_proteins = [LongProteins] if settings["long_proteins"]["max_length"] != "none" else []
    translated = ["--translated"] if settings["input"] == "nucleotide" else []
    return [*arguments(settings, RecordOptions, *long_proteins), *translated]


def embedding_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of embed_chunk.py and validate.py for embedding, without those that no value depends on.

    Raises:
        OptionError: impossible windows of long proteins.
    """
    windows = options(settings, LongProteins).windows
    return arguments(settings, EmbedOptions, *([LongProteins] if windows else []), without=OF_NO_VALUE)


def placement_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of programs that run the model on which no value depends."""
    return arguments(settings, EmbedOptions, without=set(keys_of(EmbedOptions)) - set(OF_NO_VALUE))


def repeat_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of embed_chunk.py for embedding some sequences twice."""
    return arguments(settings, RepeatOptions)


def variant_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of score_variants.py: the scores, and the options of the model without those of embeddings.

    Raises:
        OptionError: impossible windows of long proteins.
    """
    windows = [LongProteins] if options(settings, LongProteins).windows else []
    return arguments(settings, EmbedOptions, *windows, VariantOptions, without=(*OF_EMBEDDINGS, *OF_NO_VALUE))


def validation_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of validate.py for validation."""
    return arguments(settings, ValidationOptions)


def arguments(settings: Mapping[str, Any], *groups: type[Options], without: Collection[str] = ()) -> list[str]:
    """Return the flags of all options of these dataclasses, except the keys `without`, with their values."""
    words = []
    for option in (option for group in groups for option, _ in options_of(group).values()):
        if option.key in without:
            continue
        value = setting(settings, option.key)
        words += [option.flag, *map(str, value)] if isinstance(value, tuple) else [f"{option.flag}={value}"]
    return words


def options(settings: Mapping[str, Any], group: type[Options]) -> Options:
    """Return the options of a dataclass with their values in the settings.

    Raises:
        OptionError: values that cannot be combined.
    """
    values = {}
    for name, (option, _) in options_of(group).items():
        value = setting(settings, option.key)
        values[name] = None if value == option.none else value
    return group(**values)


def keys_of(*groups: type[Options]) -> list[str]:
    """Return the keys, in the configuration, of all options of these dataclasses."""
    return [option.key for group in groups for option, _ in options_of(group).values()]


def setting(settings: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    """Return the value of a key, `section.name` inside a section."""
    value: Any = settings
    for name in key.split("."):
        value = value[name]
    return value


def sample_arguments(samples: Iterable[str], *paths: Mapping[str, str]) -> list[str]:
    """Return `--sample`, and for each sample `NAME PATH ...`, with its path in each of the mappings."""
    return ["--sample", *(text for name in samples for text in (name, *(path_argument(path[name]) for path in paths)))]


def residue_arguments(paths: Mapping[str | tuple[str, str], str]) -> list[str]:
    """Return `--residues`, and `[SAMPLE] FEATURE PATH` for each file; `paths`: {feature or (sample, feature): path}."""
    keyed = [((key,) if isinstance(key, str) else key, path) for key, path in paths.items()]
    words = [text for key, path in keyed for text in (*key, path_argument(path))]
    return ["--residues", *words] if words else []


def storage_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of embed_chunk.py for how values are stored."""
    dtype = [] if settings["per_residue"] == "none" else ["--residue-dtype", settings["per_residue"]]
    return [*dtype, *arguments(settings, StorageOptions)]


def path_argument(path: str) -> str:
    """Return a path as an argument that no program can confuse with an option, or with a file of arguments."""
    return f"./{path}" if path.startswith(("-", "@")) else path
