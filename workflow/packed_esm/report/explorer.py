"""What the page's own script needs of the proteins: places, columns and neighbours, as compact JSON."""

import base64
import json

import numpy as np
import pandas as pd

from ..sequences.accessions import accession_of
from ..sequences.metadata import Metadata
from .colours import Colouring, metadata_colourings
from .figures import GREY, PALETTE, View, group_sizes, scales
from .neighbours import Neighbours
from .points import Points

STEPS = 2**16 - 1  # places in a view are numbers from 0 to this: finer than any screen
# Of JavaScript.
TYPES = {"uint16": "Uint16Array", "uint32": "Uint32Array", "float32": "Float32Array", "float64": "Float64Array"}


def explorer_data(
    points: Points,
    neighbours: Neighbours,
    proteins: pd.DataFrame,
    colouring: Colouring,
    metadata: Metadata | None,
) -> dict:
    """Return what page.js draws and shows, ready for JSON.

    Args:
        points: the proteins to show.
        neighbours: of these.
        proteins: their rows of the manifest.
        colouring: their values; the page begins with these colours.
        metadata: of them.
    """
    columns = _columns(proteins, colouring, metadata)
    texts = [text for text in _texts(proteins) if text.name not in {column.name for column in columns}]
    return {
        "ids": proteins["id"].tolist(),
        "views": [_encode_view(view) for view in points.views],
        "columns": [_encode_column(column) for column in columns + texts],
        "colourings": len(columns),  # the first columns: the page colours and lists by them
        "colour": next(i for i, column in enumerate(columns) if column.name == colouring.name),
        "neighbours": _encode_neighbours(neighbours),
        "palette": PALETTE,
        "grey": GREY,
        "scales": scales(),
    }


def as_json(data: dict) -> str:
    """Return data as JSON that may stand in a `<script>`: no text in it can end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _columns(proteins: pd.DataFrame, colouring: Colouring, metadata: Metadata | None) -> list[Colouring]:
    """Return length, sample, the column of the colours and the metadata, once each."""
    columns = [
        Colouring("length", proteins["length"].to_numpy(np.float64)),
        Colouring("sample", proteins["sample"].to_numpy(object)),
        colouring,
        *(metadata_colourings(metadata) if metadata else []),
    ]
    first: dict[str, Colouring] = {}
    for column in columns:
        first.setdefault(column.name, column)
    return list(first.values())


def _texts(proteins: pd.DataFrame) -> list[Colouring]:
    """Return what the page shows and searches beside the colours: accessions that are not ids, the rest of headers."""
    ids = proteins["id"].tolist()
    accessions = [accession_of(name) for name in ids]
    # After the first word of the header, not after the id: a repeated id got a suffix.
    titles = [" ".join(text.split(maxsplit=1)[1:]).strip() for text in proteins["description"]]
    texts = {"accession": accessions if accessions != ids else [], "description": titles}
    return [Colouring(name, np.array(values, dtype=object)) for name, values in texts.items() if values]


def _encode_view(view: View) -> dict:
    axes = ((view.x_label, view.points[:, 0]), (view.y_label, view.points[:, 1]))
    return {"name": view.name, "axes": [{"label": label, "places": _encode(_steps(values))} for label, values in axes]}


def _steps(values: np.ndarray) -> np.ndarray:
    """Return values as numbers from 0, for the lowest, to STEPS, for the highest."""
    low, high = values.min(), values.max()
    return np.rint((values - low) * (STEPS / (high - low) if high > low else 0)).astype(np.uint16)


def _encode_column(column: Colouring) -> dict:
    """Return a column of numbers, or of text: its values, the most frequent first, and which each protein has."""
    if column.numeric:
        return {"name": column.name, "numbers": _encode(column.values.astype(np.float64))}
    values = [name for name, _ in group_sizes(column.values)]
    codes = pd.Index(values, dtype=object).get_indexer(pd.Index(column.values, dtype=object))
    smallest = np.uint16 if len(values) <= STEPS else np.uint32
    return {"name": column.name, "values": values, "codes": _encode(codes.astype(smallest))}


def _encode_neighbours(neighbours: Neighbours) -> dict:
    return {
        "count": neighbours.rows.shape[1],
        "exact": neighbours.exact,
        "rows": _encode(neighbours.rows.astype(np.uint32)),
        "cosines": _encode(neighbours.cosines),
    }


def _encode(values: np.ndarray) -> dict[str, str]:
    """Return an array as the name of its type in JavaScript, and its bytes in base64."""
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return {"type": TYPES[values.dtype.name], "bytes": base64.b64encode(little_endian.tobytes()).decode("ascii")}
