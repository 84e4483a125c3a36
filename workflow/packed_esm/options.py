"""Options: fields of frozen dataclasses, each with its key in the configuration.

workflow/schemas/config.schema.yaml is the source of their defaults, words and help; a test compares them. Programs make
their flags of these fields, and rules the arguments of the programs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import check_one_of


@dataclass(frozen=True)
class Option:
    """What an option is.

    Attributes:
        key: in the configuration; `section.name` inside a section.
        help: for the flag of a program.
        kind: type of its value, or of each value of a list.
        words: the only values that it may have, or that each value of a list may have; empty: any.
        none: how None is written in the configuration and on a command line.
    """

    key: str
    help: str
    kind: type = str
    words: Sequence[str] = ()
    none: str | None = None

    @property
    def dest(self) -> str:
        """The name of its value in what argparse returns."""
        return self.key.rpartition(".")[2]

    @property
    def flag(self) -> str:
        """Its flag in the command line of a program."""
        return "--" + self.dest.replace("_", "-")


def option(default: Any, key: str, help: str, **more: Any) -> Any:  # noqa: A002, ANN401
    """Return a field of a dataclass that is an option; dataclasses.MISSING as default: it must be given."""
    return field(default=default, metadata={"option": Option(key, help, **more)})


@dataclass(frozen=True)
class Options:
    """Base of dataclasses of options: a word that an option does not have is refused by its key."""

    def __post_init__(self) -> None:
        for name, (one, _) in options_of(type(self)).items():
            value = getattr(self, name)
            for word in value if isinstance(value, list | tuple) else (value,):
                if one.words:
                    check_one_of(one.key, word, one.words)


def options_of(options: type[Options]) -> dict[str, tuple[Option, Any]]:
    """Return {name of the field: (option, default)} of the fields that are options."""
    return {one.name: (one.metadata["option"], one.default) for one in fields(options) if "option" in one.metadata}
