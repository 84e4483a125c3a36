"""Configuration values and the sample sheet, before a schema judges them."""

import contextlib
from typing import Any

import jsonschema
import yaml

from ..errors import OptionError


def coerced(value: Any, schema: dict) -> Any:  # noqa: ANN401
    """Return a config value with the types of its JSON schema: a command line gives strings inside lists and objects.

    A string is read as YAML where the schema does not want a string, and a single value is a list of one.
    """
    if schema.get("type") == "object" and isinstance(value or {}, dict):
        properties = schema["properties"]
        return {key: coerced(item, properties.get(key, {})) for key, item in dict(value or {}).items()}
    if schema.get("type") == "array":
        value = _read_yaml(value) if isinstance(value, str) else value
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
    """Raise ValueError where `value` is not what its JSON schema wants: where it stands, what is wrong, what is wanted.

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
