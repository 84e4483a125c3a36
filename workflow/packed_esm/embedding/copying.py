"""Copy all embeddings of a chunk from earlier results: a job that needs neither a model nor a device, nor torch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EarlierSettingsError
from ..outputs.columns import column_names
from ..sequences.alphabet import residue_count
from ..store.embeddings import open_sample, write_chunk
from ..system.gpu_lease import has_gpu
from .clock import Clock
from .earlier_places import EarlierPlaces, own_files
from .options import StorageOptions
from .reading import checked_records
from .reuse import look_up
from .statistics import OF_COPIES, job_statistics, write_statistics

log = logging.getLogger(__name__)


def copy_chunk(
    fasta: Path,
    out: Path,
    stats_path: Path,
    places: EarlierPlaces,
    reuse: Sequence[Path] = (),
    own_results: Path | None = None,
) -> dict | None:
    """Write the embeddings of a chunk of which `places.have_all`, and the statistics, which are returned.

    Write nothing and return None if a sequence cannot be copied, because a file of the run itself is damaged; the log
    names it.

    Args:
        fasta, out, stats_path, reuse, own_results: see `job.embed_fasta`.
        places: where the sequences are.

    Raises:
        EmbeddingFileError: a file of `reuse` is damaged.
        FastaError: a record does not match its digest.
    """
    clock = Clock()
    records = [(digest, residue_count(record.sequence)) for digest, record in checked_records(fasta)]
    digests, lengths = ([record[i] for record in records] for i in (0, 1))
    clock.lap("read")
    storage, settings = StorageOptions.of_file(places.settings)
    columns = _empty_columns(places, len(digests))
    own = own_files(own_results)
    earlier = look_up(reuse, digests, settings, columns, own=own, storage=storage, places=places, chunk=fasta.name)
    clock.lap("reuse")
    if len(earlier.missing):
        log.warning("%s: %d sequences cannot be copied from earlier results", fasta, len(earlier.missing))
        return None
    write_chunk(out, digests, lengths, earlier.columns, dict(places.settings), earlier.checksums)
    clock.lap("write")
    stats = job_statistics(lengths, earlier.found, clock.seconds, settings)
    stats |= OF_COPIES | {"checkpoint": places.checkpoint}
    write_statistics(stats_path, stats, out)
    return stats


def require_device(settings: Mapping[str, Any], fasta: Path) -> None:
    """Raise EarlierSettingsError if a chunk must be computed after all, on a GPU, and there is none.

    Args:
        settings: of the earlier results.
        fasta: of the chunk.
    """
    if settings["device"] == "cuda" and not has_gpu():
        raise EarlierSettingsError(
            f"{fasta}: not all of its embeddings can be copied, see the warnings in this log, and there is no GPU to "
            "compute them; run again with --retries 1, so that a second attempt asks for a GPU"
        )


def _empty_columns(places: EarlierPlaces, rows: int) -> Mapping[str, np.ndarray]:
    """Return an uninitialised matrix for each column of the earlier files, float32 [rows, width]."""
    with open_sample(Path(next(iter(places.files)))) as file:
        schema = file.schema_arrow
    widths = {name: getattr(schema.field(name).type, "list_size", 1) for name in column_names(places.settings)}
    return {name: np.empty((rows, width), np.float32) for name, width in widths.items()}
