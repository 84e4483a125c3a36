"""Families of models: what tells one from another, and where the code of each is. See docs/families.md.

A family is a folder of `model/families`, whose `FAMILY` is found here. Its other modules need torch, so they are named,
and imported when they are first used.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from .errors import MissingPackageError, OptionError

LM_HEAD, CONTACT_HEAD = "lm_head", "contact_head"  # the heads that a model can have
_FOLDER = Path(__file__).parent / "model" / "families"


@dataclass(frozen=True)
class ModelShape:
    """The shape of a published model, and what is published with it.

    Attributes:
        num_layers, embed_dim, attention_heads: its shape.
        sha256: of the `.pt`, if it is known.
        has_contact_head: whether a contact head is published beside the `.pt`.
        hub_id: its id on Hugging Face, where its family is published there alone.
    """

    num_layers: int
    embed_dim: int
    attention_heads: int
    sha256: str | None = None
    has_contact_head: bool = False
    hub_id: str | None = None

    @property
    def parameters(self) -> int:
        """Parameters of the blocks, 12 d^2 + 13 d each; the embedding adds less than 1 %."""
        return self.num_layers * (12 * self.embed_dim**2 + 13 * self.embed_dim)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in fp32."""
        return 4 * self.parameters


@dataclass(frozen=True)
class Family:
    """What differs between families of models.

    Attributes:
        name: for messages.
        models: {published name: shape}.
        model_type: in config.json of a Hugging Face folder; None: it has no such folders.
        tensor: regular expression of a name of a tensor in a file that no other family has; None: none.
        layer: regular expression of the names of tensors in a file, with the number of the layer as its group.
        model_class: of the models that `load` returns: module and name.
        checkpoint: module with `load(path, mapped)`, which returns a model; see `checkpoints.loading.load_model`.
        packed: module with `parts(model)`, which returns a `model.parts.PackedParts`.
        reference: module with `load_reference(path)`, the model that results are compared with, and
            `reference_tokens(sequence)`, its tokens.
        reference_package: that has this model, as pip asks for it: NAME, or NAME>=5.24.
        heads: the heads that its models can have.
        has_int8: whether its blocks have products in int8.
    """

    name: str
    models: Mapping[str, ModelShape]
    model_type: str | None
    tensor: bytes | None
    layer: bytes
    model_class: str
    checkpoint: str
    packed: str
    reference: str
    reference_package: str
    heads: tuple[str, ...] = (LM_HEAD,)
    has_int8: bool = False

    def module(self, field: str) -> ModuleType:
        """Import the module that a field names."""
        return importlib.import_module(getattr(self, field))

    @property
    def reference_name(self) -> str:
        """The package of the reference without a version."""
        return re.match(r"[\w-]+", self.reference_package)[0]

    def require_int8(self) -> None:
        """Raise OptionError if its blocks have no products in int8."""
        if not self.has_int8:
            raise OptionError(f"dtype: {self.name} has no products in int8; use dtype: auto")

    def require_reference(self) -> None:
        """Raise MissingPackageError if the package of the reference is missing or too old; it is not imported."""
        least = self.reference_package.partition(">=")[2]
        try:
            found = version(self.reference_name)
        except PackageNotFoundError:
            problem = "which is not installed"
        else:
            if _numbers(found) >= _numbers(least):
                return
            problem = f"whose version here is {found}"
        raise MissingPackageError(
            f"{self.name} is compared with {self.reference_name}, {problem}; pip install '{self.reference_package}'"
        )


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:2]]


FAMILIES: dict[str, Family] = {}
MODELS: dict[str, ModelShape] = {}
ESM2 = "ESM-2"  # the family of a checkpoint that does not say which it is of


def register(family: Family) -> None:
    """Add a family and its published models to those that are known."""
    FAMILIES[family.name] = family
    MODELS.update(family.models)


def family_of(model: object) -> Family:
    """Return the family of a loaded model.

    Raises:
        TypeError: its class is not that of a family.
    """
    names = [f"{one.__module__}.{one.__qualname__}" for one in type(model).__mro__]
    for family in FAMILIES.values():
        if family.model_class in names:
            return family
    known = ", ".join(family.model_class for family in FAMILIES.values())
    raise TypeError(
        f"base_model: a {names[0]}, which is of no known family ({known}); give what packed_esm.load_model returns"
    )


_names = [module.name for module in pkgutil.iter_modules([str(_FOLDER)])]
for _name in sorted(_names, key=lambda name: (name != "esm2", name)):  # the models of ESM-2 come first in lists
    register(importlib.import_module(f"{__package__}.model.families.{_name}").FAMILY)
