"""Write `.pt` files, one per record, as fair-esm's scripts/extract.py does."""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from ..errors import EmbeddingFileError
from ..outputs.layouts import LAYER_ROWS
from ..outputs.table import RESIDUES
from ..store.formats import Batch, Sample, Write
from ..store.names import dataset_names, file_names
from ..store.residues import RESIDUE_FILE, stored_values
from ..system.files import replacing_folder


@contextmanager
def pt_folder(folder: Path, residues: Sequence[tuple[str, Path]], sample: Sample) -> Iterator[Write]:
    """Write one file per record, as fair-esm's scripts/extract.py does, and `index.tsv` with file, id and header.

    Args:
        folder: for the files; it appears when all files are complete.
        residues: (feature, HDF5 path) of residue files; features are names of RESIDUES.
        sample: whose records are written.
    """
    headers = sample.rows["description"].str.strip()
    index = pd.DataFrame({"file": file_names(headers.tolist()), "id": sample.rows["id"], "header": headers})
    names = dataset_names(sample.rows["id"].tolist())
    layers = json.loads(sample.metadata)["settings"]["layers"]
    with replacing_folder(folder) as temporary, ExitStack() as stack:
        opened = [(feature, path, stack.enter_context(_residues_file(path))) for feature, path in residues]
        index.to_csv(temporary / "index.tsv", sep="\t", index=False)

        def write(batch: Batch) -> None:
            digests = sample.rows["digest"].iloc[batch.rows]
            records = zip(
                index["file"].iloc[batch.rows], headers.iloc[batch.rows], names[batch.rows], digests, strict=True
            )
            for row, (file, header, name, digest) in enumerate(records):
                result = {"label": header} | _pooled(batch, row)
                for feature, path, values in opened:
                    _add_residues(result, feature, path, values, name, digest, layers)
                (temporary / file).write_bytes(_saved(result))

        yield write


def _pooled(batch: Batch, row: int) -> dict:
    """Return {"mean_representations": {33: tensor [E]}, ...} of a row, and its scalars."""
    result: dict = {name: float(values[row]) for name, values in batch.scalars.items()}
    for column, matrix in batch.columns.items():
        pooling, layer = column.rsplit("_", 1)
        result.setdefault(f"{pooling}_representations", {})[int(layer)] = torch.tensor(matrix[row])
    return result


def _saved(result: dict) -> bytes:
    """Return the bytes of torch.save, whose own error for a full disk would not name the file."""
    buffer = io.BytesIO()
    torch.save(result, buffer)
    return buffer.getvalue()


def _residues_file(path: Path) -> h5py.File:
    with RESIDUE_FILE.reading(path):
        return h5py.File(path)


def _add_residues(
    result: dict, feature: str, path: Path, file: h5py.File, name: str, digest: str, layers: Sequence[int]
) -> None:
    """Add the values of each residue of a record to `result`, in fp32; representations by layer, as in fair-esm.

    Raises:
        EmbeddingFileError: the record is missing, or belongs to another sequence.
    """
    with RESIDUE_FILE.reading(path):
        found = file[name].attrs.get("digest") if name in file else None
    if found != digest:
        raise EmbeddingFileError(
            f"{path}, dataset {name!r}: should be {digest}, but "
            f"{f'it contains {found}' if found else 'it is missing'}; remove the file and run again"
        )
    with RESIDUE_FILE.reading(path):
        stored = stored_values(file[name])
    values = torch.from_numpy(stored.decoded.astype(np.float32))
    if RESIDUES[feature].layout is LAYER_ROWS:
        result[feature] = dict(zip(layers, values if values.ndim == 3 else values[None], strict=True))
    else:
        result[feature] = values
