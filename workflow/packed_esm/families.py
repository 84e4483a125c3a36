"""Families of models beside those of fair-esm: how a checkpoint of one is recognised, and where its code is.

A family is one folder of code, described in docs/families.md. Nothing here imports it, or torch.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from .errors import MissingPackageError


@dataclass(frozen=True)
class Published:
    """A published model: its id on Hugging Face, and its shape."""

    hub_id: str
    num_layers: int
    embed_dim: int
    attention_heads: int


@dataclass(frozen=True)
class Family:
    """What tells a family from others without its code.

    Attributes:
        name: for messages.
        package: the importable name of its folder, whose modules `checkpoint` and `reference` have `load`.
        reference: the package that its results are compared with, as pip asks for it: NAME, or NAME>=5.24.
        model_type: in config.json of a Hugging Face folder.
        layer_name: regular expression of the names of tensors in a file, with the number of the layer as its group.
        published: {name: model}.
    """

    name: str
    package: str
    reference: str
    model_type: str
    layer_name: bytes | None = None
    published: Mapping[str, Published] = field(default_factory=dict)

    def module(self, name: str) -> ModuleType:
        """Import a module of the family."""
        return importlib.import_module(f"{self.package}.{name}")

    @property
    def reference_package(self) -> str:
        """The name of the package that its results are compared with."""
        return re.match(r"[\w-]+", self.reference)[0]

    def require_reference(self) -> None:
        """Raise MissingPackageError if the package of the reference is missing or too old; it is not imported."""
        least = self.reference.partition(">=")[2]
        try:
            found = version(self.reference_package)
        except PackageNotFoundError:
            problem = "which is not installed"
        else:
            if _numbers(found) >= _numbers(least):
                return
            problem = f"whose version here is {found}"
        raise MissingPackageError(
            f"{self.name} is compared with {self.reference_package}, {problem}; pip install '{self.reference}'"
        )


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:2]]


FAMILIES = [
    Family(
        "ESM C",
        "packed_esm.model.esmc",
        "transformers>=5.24",
        "esmc",
        rb"\btransformer\.blocks\.(\d{1,4})\.",
        {
            "esmc_300m": Published("biohub/ESMC-300M", 30, 960, 15),
            "esmc_600m": Published("biohub/ESMC-600M", 36, 1152, 18),
        },
    ),
]


def register(family: Family) -> None:
    """Add a family, so that its checkpoints are found."""
    FAMILIES.append(family)


def published_models() -> dict[str, Published]:
    """Return {name: model} of all families."""
    return {name: model for family in FAMILIES for name, model in family.published.items()}
