"""Ways to compress the values of each residue: size, rates of writing and reading on one thread.

  python tests/benchmarks/storage.py [--dtype float16] [--json storage.json]

The values are those of the demonstration model for its example, one HDF5 dataset per protein, in the temporary folder.
Filters other than gzip and lzf need the package hdf5plugin, also to read a file.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.outputs.forms import Form
from packed_esm.sequences.alphabet import normalise
from packed_esm.sequences.fasta import Record, read_records
from packed_esm.sequences.tokens import tokenize
from packed_esm.system.tree import tree


def values_of(records: Iterable[Record], dtype: str) -> list[np.ndarray]:
    """Return [L, E] of each protein, from the demonstration model."""
    tokens = [tokenize(normalise(record.sequence)) for record in records]
    found: dict[int, np.ndarray] = {}

    def keep(index: int, arrays: dict[str, np.ndarray]) -> None:
        found[index] = arrays["representations"].copy()

    embedder = Embedder(EmbedOptions(DEMO_PATH, device="cpu"))
    embedder.embed(tokens, each_sequence=keep, stored={"representations": Form(dtype)})
    return [found[index] for index in sorted(found)]


def example_values(dtype: str) -> list[np.ndarray]:
    """Return [L, E] of each protein of the example."""
    fastas = sorted((tree() / "config" / "example").glob("*.fasta"))
    return values_of((record for fasta in fastas for record in read_records(fasta)), dtype)


def filters() -> dict[str, tuple[dict, str]]:
    """Return {name: (options of create_dataset, what reads it)}."""
    found = {
        "none": ({}, "any HDF5"),
        "gzip 1, shuffle": ({"compression": "gzip", "compression_opts": 1, "shuffle": True}, "any HDF5"),
        "lzf, shuffle": ({"compression": "lzf", "shuffle": True}, "h5py"),
    }
    if importlib.util.find_spec("hdf5plugin"):
        import hdf5plugin

        found["LZ4, bitshuffle"] = (dict(hdf5plugin.Bitshuffle(cname="lz4")), "hdf5plugin")
        found["Blosc2 LZ4, bitshuffle"] = (
            dict(hdf5plugin.Blosc2(cname="lz4", filters=hdf5plugin.Blosc2.BITSHUFFLE)),
            "hdf5plugin",
        )
        found["Blosc2 zstd, bitshuffle"] = (
            dict(hdf5plugin.Blosc2(cname="zstd", clevel=3, filters=hdf5plugin.Blosc2.BITSHUFFLE)),
            "hdf5plugin",
        )
    return found


def measure(values: Sequence[np.ndarray], options: dict, path: Path) -> dict[str, float]:
    """Write and read the values; return size and rates."""
    size = sum(array.nbytes for array in values)
    start = time.perf_counter()
    with h5py.File(path, "w") as file:
        for index, array in enumerate(values):
            chunks = array.shape if options else None
            file.create_dataset(str(index), data=array, chunks=chunks, **options)
    written = time.perf_counter()
    with h5py.File(path) as file:
        for index, array in enumerate(values):
            if not np.array_equal(file[str(index)][...], array):
                raise ValueError(f"{path}, dataset {index}: other values than were written")
    read = time.perf_counter()
    share = path.stat().st_size / size
    return {
        "share": share,
        "write_mb_per_s": size / 1e6 / (written - start),
        "read_mb_per_s": size / 1e6 / (read - written),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    values, rows = example_values(args.dtype), []
    print(f"{args.dtype}: {len(values)} proteins, {sum(array.nbytes for array in values) / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        for name, (options, reader) in filters().items():
            path = Path(folder) / "values.h5"
            measure(values, options, path)
            row = {"dtype": args.dtype, "compression": name, "read_by": reader} | measure(values, options, path)
            rows.append(row)
            print(
                f"{name:24} {row['share']:6.3f} of the bytes, writes {row['write_mb_per_s']:6.0f} MB/s, reads "
                f"{row['read_mb_per_s']:6.0f} MB/s, read by {reader}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
