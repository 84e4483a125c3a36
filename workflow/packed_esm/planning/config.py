"""The configuration of a run: checked against its JSON schema, completed by its defaults, and frozen."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import yaml

from ..errors import OptionError

RENAMED = {  # names of earlier versions
    "genetic_code": "translation.genetic_code",
    "window": "translation.window",
    "ambiguous_codons": "translation.ambiguous_codons",
    "max_length": "long_proteins.max_length",
    "too_long": "long_proteins.action",
    "window_overlap": "long_proteins.overlap",
}


def read_config(config: Mapping, schema_path: Path) -> Mapping[str, Any]:
    """Return the settings of a run, read-only: lists are tuples, and sections are read-only too.

    Args:
        config: as Snakemake has it; a command line gives strings inside lists and sections.
        schema_path: JSON schema of the configuration, in YAML. What `config` lacks gets the default of its key.

    Raises:
        OptionError: a key of another name, or a value that the schema does not allow.
    """
    schema = yaml.safe_load(schema_path.read_text(encoding="utf-8"))
    given = coerced(config, schema)
    _check_keys(given, schema)
    check(given, schema, "config")
    return _frozen(with_defaults(given, schema))


def keys(schema: dict) -> dict[str, dict]:
    """Return {key: its schema} of all keys but the sections, those inside a section as `section.key`."""
    return {
        f"{name}.{inner}" if inner else name: rule
        for name, section in schema["properties"].items()
        for inner, rule in section.get("properties", {"": section}).items()
    }


def with_defaults(value: Mapping, schema: dict) -> dict:
    """Return the values with the defaults of the keys that are not given; also inside sections."""
    filled = {}
    for key, rule in schema["properties"].items():
        filled[key] = value.get(key, rule["default"])
        if "properties" in rule:
            filled[key] = with_defaults(filled[key], rule)
    return filled


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value of the settings as JSON has it: lists for tuples, and dicts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check_keys(given: Mapping, schema: dict) -> None:
    """Raise OptionError for the first key that there is not: what it is called now, or the key of the nearest name."""
    known = keys(schema)
    for section, key, value in _unknown(given, schema):
        where = f"config, {section}" if section else "config"
        if key in RENAMED:
            outer, inner = RENAMED[key].split(".")
            example = f"{outer}={{{inner}: {coerced(value, known[RENAMED[key]])}}}"
            raise OptionError(f"{where}: {key} is now {outer}.{inner}; write --config '{example}'")
        names = {name.rpartition(".")[2]: name for name in known} | {name: name for name in schema["properties"]}
        near = difflib.get_close_matches(key, names, 1)
        hint = f"did you mean {names[near[0]]}?" if near else "config/README.md has all keys"
        raise OptionError(f"{where}: there is no key {key}; {hint}")


def _unknown(given: Mapping, schema: dict) -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, value) of each key that the schema does not have; the section is empty outside of one."""
    for key, value in given.items():
        rule = schema["properties"].get(key)
        if rule is None:
            yield "", str(key), value
        elif "properties" in rule and isinstance(value, Mapping):
            yield from ((key, str(inner), item) for inner, item in value.items() if inner not in rule["properties"])


def coerced(value: Any, schema: dict) -> Any:  # noqa: ANN401
    """Return a config value with the types of its JSON schema: a command line gives strings inside lists and objects.

    A string is read as YAML where the schema does not want a string. A list may be written with commas and no brackets,
    which mean something to shells; a single value is a list of one.
    """
    if schema.get("type") == "object" and isinstance(value or {}, Mapping):
        properties = schema["properties"]
        return {key: coerced(item, properties.get(key, {})) for key, item in dict(value or {}).items()}
    if schema.get("type") == "array":
        if isinstance(value, str):
            value = _read_yaml(value) if value.startswith("[") else value.split(",") if value else []
        return [coerced(item, schema["items"]) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, str) and schema.get("type") != "string":
        value = _read_yaml(value)
    if isinstance(value, str) and any(option.get("type") == "number" for option in schema.get("oneOf", ())):
        with contextlib.suppress(ValueError):
            return float(value)  # YAML 1.1 takes 1e-5 for a string
    return value


def _read_yaml(text: str) -> Any:  # noqa: ANN401
    """Return what `text` is in YAML; itself where it is none, and the schema says what is wrong with it."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text


def check(value: dict, schema: dict, where: str) -> None:
    """Raise OptionError where `value` is not what its JSON schema wants: where it is, what is wrong, what is wanted.

    Only the first mistake is named, and the remedy is the schema's own description.
    """
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if error is None:
        return
    wanted = schema
    for key in error.absolute_path:
        wanted = wanted.get("properties", {}).get(key, wanted)  # an item of a list has no description of its own
    place = "".join(f", {key}" for key in error.absolute_path)
    raise OptionError(f"{where}{place}: {error.message} ({wanted['description'].removesuffix('.')})")
