"""Choose the sequences that are compared with fair-esm."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from ..sequences.manifest import SCHEMA

MOST_KEPT = 2**17  # sequences


class Candidates:
    """The sequences of a run, each once, to choose from; of more than `MOST_KEPT`, that many and both ends.

    Those with the smallest digests are kept: a digest says nothing of its sequence, so they are a random sample.

    Attributes:
        seen: number of rows.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._kept = SCHEMA.empty_table().to_pandas()
        self._waiting: list[pd.DataFrame] = []
        self._waiting_rows = 0

    @property
    def rows(self) -> pd.DataFrame:
        """Rows of the manifest: the first with each sequence that is kept."""
        self._choose()
        return self._kept

    def among(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield batches of rows of the manifest, and keep candidates among them."""
        for batch in batches:
            self.seen += len(batch)
            possible = batch[self._may_be_kept(batch)]
            if len(possible):
                self._waiting.append(possible)
                self._waiting_rows += len(possible)
            if self._waiting_rows > MOST_KEPT:
                self._choose()
            yield batch

    def _may_be_kept(self, rows: pd.DataFrame) -> pd.Series:
        """Return which rows have a digest as small as those that are kept, or may be an end."""
        if len(self._kept) < MOST_KEPT:
            return pd.Series(True, rows.index)
        shortest, longest = self._kept["length"].min(), self._kept["length"].max()
        is_end = (rows["length"] <= shortest) | (rows["length"] >= longest)
        return is_end | (rows["digest"] <= self._kept["digest"].iloc[MOST_KEPT - 1])

    def _choose(self) -> None:
        """Keep some of the rows that wait, and let go of the others."""
        if self._waiting:
            kept = [self._kept] if len(self._kept) else []
            self._kept = _some(pd.concat([*kept, *self._waiting]).drop_duplicates("digest"))
            self._waiting, self._waiting_rows = [], 0


def _some(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to keep of rows whose digests differ; if not all, then by digest, and the ends last."""
    if len(rows) <= MOST_KEPT:
        return rows
    by_length = rows.sort_values(["length", "digest"])
    kept = rows.sort_values("digest").iloc[:MOST_KEPT]
    return pd.concat([kept, by_length.iloc[[0, -1]]]).drop_duplicates("digest")


def stratified_sample(rows: pd.DataFrame, sequences: int, seed: int) -> pd.DataFrame:
    """Return records of all lengths: a random one of each stratum, and always the shortest and the longest.

    Each sequence is chosen at most once, also if several records have it. The order is by decreasing length.
    """
    unique = rows.drop_duplicates("digest").sort_values(["length", "digest"]).reset_index(drop=True)
    if len(unique) <= sequences:
        chosen = np.arange(len(unique))
    else:
        inner = max(0, sequences - 2)
        bounds = np.linspace(1, len(unique) - 1, inner + 1).astype(int)
        rng = np.random.default_rng(seed)
        picks = [int(rng.integers(low, high)) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
        chosen = np.array(sorted({0, len(unique) - 1, *picks}))
    return unique.iloc[chosen[::-1]].reset_index(drop=True)
