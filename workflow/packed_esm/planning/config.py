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
        config: from Snakemake; values of a command line are strings inside lists and sections.
        schema_path: JSON schema of the configuration, in YAML; a missing key gets its default.

    Raises:
        OptionError: an unknown key, or a value that the schema does not allow.
    """
    schema = yaml.safe_load(schema_path.read_text(encoding="utf-8"))
    values = coerced(config, schema)
    _check_keys(values, schema)
    check(values, schema, "config")
    return _frozen(with_defaults(values, schema))


def keys(schema: dict) -> dict[str, dict]:
    """Return {key: its schema} of all keys except sections; a key inside a section is `section.key`."""
    return {
        f"{name}.{inner}" if inner else name: rule
        for name, section in schema["properties"].items()
        for inner, rule in section.get("properties", {"": section}).items()
    }


def with_defaults(value: Mapping, schema: dict) -> dict:
    """Return the values, with the defaults of missing keys; also inside sections."""
    filled = {}
    for key, rule in schema["properties"].items():
        filled[key] = value.get(key, rule["default"])
        if "properties" in rule:
            filled[key] = with_defaults(filled[key], rule)
    return filled


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value of the settings with the types of JSON: lists and dicts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check_keys(values: Mapping, schema: dict) -> None:
    """Raise OptionError for the first unknown key; the message has its new name, or the key of the nearest name."""
    known = keys(schema)
    for section, key, value in _unknown(values, schema):
        where = f"config, {section}" if section else "config"
        if key in RENAMED:
            outer, inner = RENAMED[key].split(".")
            example = f"{outer}={{{inner}: {coerced(value, known[RENAMED[key]])}}}"
            raise OptionError(f"{where}: {key} is now {outer}.{inner}; write --config '{example}'")
        names = {name.rpartition(".")[2]: name for name in known} | {name: name for name in schema["properties"]}
        near = difflib.get_close_matches(key, names, 1)
        hint = f"did you mean {names[near[0]]}?" if near else "config/README.md has all keys"
        raise OptionError(f"{where}: there is no key {key}; {hint}")


def _unknown(values: Mapping, schema: dict) -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, value) of each key that the schema lacks; the section of a top-level key is empty."""
    for key, value in values.items():
        rule = schema["properties"].get(key)
        if rule is None:
            yield "", str(key), value
        elif "properties" in rule and isinstance(value, Mapping):
            yield from ((key, str(inner), item) for inner, item in value.items() if inner not in rule["properties"])


def coerced(value: Any, schema: dict) -> Any:  # noqa: ANN401
    """Convert a config value to the types of its JSON schema: a command line gives strings inside lists and objects.

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
            return float(value)  # for YAML 1.1, 1e-5 is a string
    return value


def _read_yaml(text: str) -> Any:  # noqa: ANN401
    """Return the value that `text` has as YAML, or `text` if it is not YAML; the schema then refuses it."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text


def check(value: dict, schema: dict, where: str) -> None:
    """Raise OptionError if a value does not fit its JSON schema; the message has its place, the mistake and the remedy.

    The message names only one mistake; the remedy is the description in the schema.
    """
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if error is None:
        return
    rule = schema
    for key in error.absolute_path:
        rule = rule.get("properties", {}).get(key, rule)  # an item of a list has no description of its own
    place = "".join(f", {key}" for key in error.absolute_path)
    raise OptionError(f"{where}{place}: {error.message} ({rule['description'].removesuffix('.')})")
