"""The columns of embeddings that belong to the settings of a run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import OptionError
from .table import SCALARS


@dataclass(frozen=True)
class Column:
    """A column: a pooled layer (name of POOLINGS, index), or a scalar (name of SCALARS)."""

    pooling: str | None = None
    layer: int | None = None
    scalar: str | None = None

    @property
    def name(self) -> str:
        """`mean_33` and so on; the name of a scalar."""
        return self.scalar or f"{self.pooling}_{self.layer}"

    @property
    def is_masked(self) -> bool:
        """Whether it comes from masked copies; such columns are the last."""
        return bool(self.scalar and SCALARS[self.scalar].of_masked)

    def width(self, embed_dim: int) -> int:
        """Return the number of values per protein."""
        return 1 if self.scalar else embed_dim


def columns_of(settings: Mapping) -> list[Column]:
    """Return the columns of results with these settings, in their order."""
    pooled = [Column(name, layer) for layer in settings["layers"] for name in settings["pooling"]]
    scalars = [Column(scalar=name) for name in settings.get("include", ()) if name in SCALARS]
    return pooled + sorted(scalars, key=lambda column: column.is_masked)


def column_names(settings: Mapping) -> list[str]:
    """Return the names of the columns, `mean_33` and so on, in their order."""
    return [column.name for column in columns_of(settings)]


def resolve_layers(repr_layers: Iterable[int], num_layers: int) -> list[int]:
    """Return layer indices as fair-esm counts them, 0 (embedding) to N (after the final norm), without duplicates.

    A negative i means (i + N + 1), as in fair-esm's scripts/extract.py.

    Raises:
        OptionError: a layer outside -(N + 1) .. N.
    """
    resolved = []
    for layer in repr_layers:
        if not -(num_layers + 1) <= layer <= num_layers:
            raise OptionError(
                f"repr_layers: {layer} is out of range for a model of {num_layers} layers "
                f"({-(num_layers + 1)} to {num_layers})"
            )
        resolved.append((layer + num_layers + 1) % (num_layers + 1))
    return list(dict.fromkeys(resolved))
