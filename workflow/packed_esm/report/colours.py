"""Colour the proteins of a plot by a column of a metadata sheet, a key of their descriptions, or the sample."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..sequences.metadata import Metadata

log = logging.getLogger(__name__)

MAX_COLUMNS = 30  # of the sheet, on the page


@dataclass(frozen=True)
class Colouring:
    """A value for each protein: text (object [n]), or numbers (float64 [n], nan for a protein without one)."""

    name: str
    values: np.ndarray

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.values.dtype.kind == "f"


def metadata_colourings(metadata: Metadata) -> list[Colouring]:
    """Return what each column of the metadata says of the proteins, in the order of the sheet, up to MAX_COLUMNS."""
    return [_of_column(metadata, name) for name in metadata.sheet.columns[:MAX_COLUMNS]]


def columns_left_out(metadata: Metadata) -> int:
    """Return the number of columns beyond MAX_COLUMNS."""
    return max(0, len(metadata.sheet.columns) - MAX_COLUMNS)


def choose_colouring(proteins: pd.DataFrame, color_by: str, metadata: Metadata | None = None) -> Colouring:
    """Return the values of `color_by`: from a column of the metadata, or else from a key in the descriptions.

    If neither has it, or `color_by` is empty or `sample`, return the samples.

    Args:
        proteins: rows of the manifest.
        color_by: a column of the metadata, or a key.
        metadata: sheet matched to these proteins.
    """
    if metadata is not None and color_by in metadata.sheet.columns:
        return _of_column(metadata, color_by)
    wanted = "" if color_by == "sample" else color_by
    values = values_of_key(proteins["description"].tolist(), wanted)
    if any(values):
        return Colouring(color_by, _named(values, color_by))
    if wanted and len(proteins):
        log.warning(
            "color_by: no record has %r as a column of the metadata or as a key=value of its description; "
            "coloured by sample",
            color_by,
        )
    return Colouring("sample", proteins["sample"].to_numpy(object))


def values_of_key(descriptions: Sequence[str], key: str) -> list[str]:
    """Return the value of `key=` in each description, empty for a description without it."""
    if not key:
        return [""] * len(descriptions)
    # A value with spaces ends where the next key begins, as in UniProt's `OS=Homo sapiens OX=9606`.
    pattern = re.compile(rf"(?:^|\s){re.escape(key)}=(.*?)(?=\s\w+=|$)")
    return [match.group(1) if (match := pattern.search(text)) else "" for text in descriptions]


def _of_column(metadata: Metadata, name: str) -> Colouring:
    values = Colouring(name, metadata.values(name))
    return values if values.numeric else Colouring(name, _named(values.values, name))


def _named(values: Sequence[str], name: str) -> np.ndarray:
    return np.array([value or f"no {name}" for value in values], dtype=object)
