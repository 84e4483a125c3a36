"""The table of sizes of docs/using.md: what each output takes on the disk for two sets of proteins, at 650M.

  python tests/benchmarks/sizes.py

Computed from the numbers of proteins and residues. What HDF5 adds to the values of a dataset was measured
in the file of a sample (`merging.py`); a test compares OVERHEAD with that in the file of a chunk.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packed_esm.outputs.forms import Form
from packed_esm.store.residues import ResidueWriter

WIDTH = 1280  # E of 650M
TOKENS = 33
OVERHEAD = 500  # bytes that HDF5 adds to the values of a dataset: its header, attributes and name, and gaps
SIGMA = 0.6  # of the logarithm of the lengths, as in forward.uniprot_like


@dataclass(frozen=True)
class Proteins:
    """A set of proteins.

    Attributes:
        name: for the head of the table.
        count: of the proteins.
        residues: of all of them.
    """

    name: str
    count: float
    residues: float

    @property
    def pairs(self) -> float:
        """The sum of the squares of the lengths, if they are log-normal: E[L^2] = E[L]^2 exp(SIGMA^2)."""
        return self.residues**2 / self.count * math.exp(SIGMA**2)


SETS = (
    Proteins("human proteome", 20_600, 11.4e6),
    Proteins("UniRef50", 60e6, 18e9),
)


def dataset(values: Callable[[Proteins], float], size: int) -> Callable[[Proteins], float]:
    """Return a function of the bytes of a residue file with `values` of `size` bytes."""
    return lambda proteins: values(proteins) * size + proteins.count * OVERHEAD


def rows_of_width(width: int, size: int) -> Callable[[Proteins], float]:
    """Return a function of the bytes of a residue file with [L, width] a protein."""
    return dataset(lambda proteins: proteins.residues * width, size)


# (output, keys, bytes)
OUTPUTS: tuple[tuple[str, str, Callable[[Proteins], float]], ...] = (
    ("a pooled vector", "`pooled_dtype: float32`", lambda proteins: proteins.count * WIDTH * 4),
    ("", "`pooled_dtype: float16`", lambda proteins: proteins.count * WIDTH * 2),
    ("residue vectors of one layer", "`per_residue: float32`", rows_of_width(WIDTH, 4)),
    ("", "`per_residue: float16`", rows_of_width(WIDTH, 2)),
    ("", "`per_residue: int8`", lambda proteins: rows_of_width(WIDTH, 1)(proteins) + proteins.count * WIDTH * 4),
    ("logits", "`include_dtype: float32`", rows_of_width(TOKENS, 4)),
    ("", "`include_dtype: float16`", rows_of_width(TOKENS, 2)),
    ("contacts", "`include_dtype: float32`", dataset(lambda proteins: proteins.pairs, 4)),
    ("", "`include_dtype: float16`", dataset(lambda proteins: proteins.pairs, 2)),
    ("", "`include_dtype: float32`, `contact_maps: triangle`", dataset(lambda proteins: proteins.pairs / 2, 4)),
    ("", "`include_dtype: float16`, `contact_maps: triangle`", dataset(lambda proteins: proteins.pairs / 2, 2)),
)


def hdf5_bytes_per_dataset(count: int = 2000, length: int = 20) -> float:
    """Write residue vectors, and return the bytes of the file beyond its values, for each dataset."""
    values = np.zeros((length, WIDTH), np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.h5"
        with ResidueWriter({"representations": path}, {"representations": Form("float16")}) as writer:
            for index in range(count):
                writer.write(f"SQ.{index:032}", {"representations": values}, str(index))
            writer.finish({"tokens_per_pack": 1})
        return path.stat().st_size / count - values.nbytes


def in_words(size: float) -> str:
    """Return bytes with two digits, in decimal units."""
    exponent = int(math.log10(size) // 3)
    number = float(f"{size / 1000**exponent:.2g}")
    return f"{number:.{1 if number < 10 else 0}f} {('B', 'KB', 'MB', 'GB', 'TB', 'PB')[exponent]}"


def table() -> str:
    """Return the table as Markdown."""
    lines = [f"| output of 650M | keys | {' | '.join(proteins.name for proteins in SETS)} |", "|---|---|---:|---:|"]
    for output, keys, size in OUTPUTS:
        lines.append(f"| {output} | {keys} | " + " | ".join(in_words(size(proteins)) for proteins in SETS) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    print(f"\nHDF5 adds {hdf5_bytes_per_dataset():.0f} bytes to a dataset")
