"""The two kinds of earlier results: those that the key `reuse` names, and those of this run itself."""

from dataclasses import replace
from typing import NamedTuple

from ..store.embeddings import SAMPLE_FILE
from ..system.files import FileKind

REMEDY = "remove it from `reuse`, or replace it by an undamaged copy"


class Origin(NamedTuple):
    """The kind of the Parquet files (its errors name the remedy), and whether the files belong to this run."""

    sample: FileKind
    is_own: bool

    def kind(self, kind: FileKind) -> FileKind:
        """Return another kind of files beside these, with the same remedy."""
        return kind if self.is_own else replace(kind, remedy=REMEDY)


GIVEN = Origin(replace(SAMPLE_FILE, remedy=REMEDY), is_own=False)
OWN = Origin(SAMPLE_FILE, is_own=True)
