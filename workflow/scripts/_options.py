"""Generate flags from the library's dataclasses of options."""

import argparse
from collections.abc import Callable
from dataclasses import MISSING
from typing import Any, TypeVar

import _program  # noqa: F401 - puts the library on the path
from packed_esm.options import Option, Options, options_of

Group = TypeVar("Group", bound=Options)


def add_options(parser: argparse._ActionsContainer, *groups: type[Options]) -> None:
    """Add a flag for each option of these dataclasses."""
    for option, default in (one for group in groups for one in options_of(group).values()):
        parser.add_argument(option.flag, **_arguments(option, default))


def options_from(args: argparse.Namespace, group: type[Group], **others: Any) -> Group:  # noqa: ANN401
    """Return the parsed options of `add_options`; `others`: other fields, or values that replace parsed ones."""
    parsed = {name: getattr(args, option.dest) for name, (option, _) in options_of(group).items()}
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items()}
    return group(**frozen | others)


def _arguments(option: Option, default: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the keywords of `add_argument` for an option."""
    keywords = {"help": option.help, "type": _reader(option), "choices": option.words or None}
    keywords |= {} if option.kind is str else {"metavar": "N" if option.kind is int else "X"}
    if default is MISSING:
        return keywords | {"required": True}
    shown = option.none if default is None else default
    if isinstance(default, tuple):
        keywords["nargs"] = "+" if default else "*"
        shown = " ".join(map(str, default)) or "none"
    return keywords | {"default": default, "help": f"{option.help} (default: {shown})"}


def _reader(option: Option) -> Callable[[str], Any]:
    """Return a function that reads a value; argparse shows its name in messages."""

    def read(text: str) -> Any:  # noqa: ANN401
        return None if text == option.none else option.kind(text)

    read.__name__ = option.kind.__name__
    return read
