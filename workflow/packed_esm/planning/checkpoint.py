"""The checkpoint of a run: its files, and those that must be downloaded first."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..checkpoints.fair_esm import require_fair_esm
from ..checkpoints.headers import checkpoint_files, family_at, has_contact_head, known_layers, layer_count
from ..checkpoints.registry import (
    DEMO,
    check_layers,
    contact_head_path,
    contact_head_url,
    find_model,
    results_name,
    shape_of,
)
from ..errors import MissingPackageError, OptionError
from ..families import CONTACT_HEAD, ESM2, FAMILIES, MODELS, Family, ModelShape
from ..outputs.columns import column_names, resolve_layers

IN_ENVIRONMENTS = ("fair-esm",)  # packages of references in `envs/`


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint that the settings of a run name.

    Raises:
        OptionError: there is no such model, or it has not such a layer or dtype.
        CheckpointError: its config.json, or its list of tensors, cannot be read.
    """

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        is_readable = self.model in MODELS or self.path.exists()  # `files` says that it is not there
        if is_readable and (last := known_layers(self.model, self.path)):
            check_layers(self.model, last, self.settings["layers"])
        if self.settings["dtype"] == "int8":
            self.family.require_int8()

    @property
    def model(self) -> str:
        """The value of the key `model`."""
        return self.settings["model"]

    @cached_property
    def path(self) -> Path:
        """The `.pt` file or the folder."""
        return find_model(self.model)

    @cached_property
    def family(self) -> Family:
        """The family of a published name, or else of what is at the path."""
        named = [family for family in FAMILIES.values() if self.model in family.models]
        return named[0] if named else family_at(self.path) if self.path.exists() else FAMILIES[ESM2]

    def require_packages(self, deployment: Collection[str]) -> None:
        """Raise MissingPackageError if a package that loads the model, or that it is compared with, is missing.

        Args:
            deployment: what the jobs run in: `conda` (the environments of `envs/`), `apptainer` (an image, whose
                packages nobody knows here), or nothing but this environment.
        """
        family = self.family
        if not deployment:
            require_fair_esm()
            family.require_reference()
        elif "conda" in deployment and family.reference_name not in IN_ENVIRONMENTS:
            raise MissingPackageError(
                f"{family.name} is compared with {family.reference_name}, which the conda environments of the workflow "
                "do not have; run without --sdm conda"
            )

    @property
    def contact_head(self) -> Path:
        """The file of its contact head, which need not exist."""
        return contact_head_path(self.path)

    @property
    def shape(self) -> ModelShape:
        """The shape of a named model; for others an estimate."""
        return shape_of(str(self.model))

    @property
    def results_name(self) -> str:
        """The name of the folder of its results."""
        return self.settings["name"] or results_name(self.model)

    @cached_property
    def is_missing(self) -> bool:
        """Whether it is a published model that must be downloaded first."""
        return self.model in MODELS and not self.path.exists()

    @cached_property
    def is_contact_head_missing(self) -> bool:
        """Whether the contact head of a published model is needed and must be downloaded first.

        Raises:
            OptionError: `include` has contacts, and there is no contact head for this model.
        """
        if "contacts" not in self.settings["include"] or self.contact_head.exists():
            return False
        if self.model in MODELS:
            contact_head_url(self.model)  # raises OptionError if none is published
            return True
        if CONTACT_HEAD not in self.family.heads:
            raise OptionError(f"include: contacts: {self.family.name} has no contact head; remove contacts")
        if not has_contact_head(self.path):
            raise OptionError(
                f"include: contacts needs a contact head, but neither {self.path} nor {self.contact_head} has one"
            )
        return False

    @property
    def has_contact_head_file(self) -> bool:
        """Whether its contact head is a separate file, which may have to be downloaded first."""
        return self.contact_head.exists() or self.is_contact_head_missing

    @property
    def files(self) -> list[Path]:
        """Its files without the contact head; if it must be downloaded first, the path that it will have."""
        return [self.path] if self.is_missing else checkpoint_files(self.path)

    @property
    def inputs(self) -> list[Path]:
        """The files that jobs wait for.

        Empty for the demonstration model: its file is in the clone, which may move; a stamp changes when it changes.
        """
        if self.model == DEMO:
            return []
        return self.files + ([self.contact_head] if self.has_contact_head_file and not self.path.is_dir() else [])

    def columns(self) -> list[str]:
        """Return the names of the pooled columns of embeddings, as embed_chunk.py will write them.

        Raises:
            OptionError: negative layers of a file that does not tell how many it has.
        """
        layers = self.settings["layers"]
        count = layer_count(self.model, self.path) if min(layers) < 0 else max(layers)
        return column_names({"layers": resolve_layers(layers, count), "pooling": self.settings["pooling"]})
