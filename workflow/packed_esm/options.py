"""Options: fields of frozen dataclasses, each with its key in the configuration.

workflow/schemas/config.schema.yaml is the source of their defaults, words and help; a test compares them. The flags of
programs, and the arguments that rules pass to them, are generated from these fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import check_one_of


@dataclass(frozen=True)
class Option:
    """An option of the configuration and of programs.

    Attributes:
        key: in the configuration; `section.name` inside a section.
        help: for the flag of a program.
        kind: type of its value, or of each value of a list.
        words: the allowed values, for a list those of each item; empty: any value.
        none: the word for None in the configuration and on a command line.
    """

    key: str
    help: str
    kind: type = str
    words: Sequence[str] = ()
    none: str | None = None

    @property
    def dest(self) -> str:
        """The name of its value in argparse's namespace."""
        return self.key.rpartition(".")[2]

    @property
    def flag(self) -> str:
        """Its flag in the command line of a program."""
        return "--" + self.dest.replace("_", "-")


def option(default: Any, key: str, help: str, **more: Any) -> Any:  # noqa: A002, ANN401
    """Return a dataclass field that is an option; it is required if the default is dataclasses.MISSING."""
    return field(default=default, metadata={"option": Option(key, help, **more)})


@dataclass(frozen=True)
class Options:
    """Base of dataclasses of options; refuses a value that is not one of the words of its option, and names the key."""

    def __post_init__(self) -> None:
        for name, (one, _) in options_of(type(self)).items():
            value = getattr(self, name)
            for word in value if isinstance(value, list | tuple) else (value,):
                if one.words:
                    check_one_of(one.key, word, one.words)


def options_of(options: type[Options]) -> dict[str, tuple[Option, Any]]:
    """Return {name of the field: (option, default)} of the fields that are options."""
    return {one.name: (one.metadata["option"], one.default) for one in fields(options) if "option" in one.metadata}
