"""Read all samples, keep one copy of equal sequences, and assign them to chunks of equal work, in bounded memory.

Records are read once and staged in a scratch folder. DuckDB finds equal sequences and repeated ids there, without the
sequences themselves. Then the staged records are read once more, in order, and all outputs are written.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..system.database import database
from ..system.files import check_room, file_identity, replacing, scratch_folder, write_json
from .chunk_files import ChunkFiles
from .deduplication import FIRST, Records, in_groups
from .fasta import fasta_bytes, sha256_as_read
from .manifest import ACCEPTED, REJECTED, SCHEMA, STATUSES, manifest_writer
from .options import ChunkOptions
from .records import read_sample
from .staging import stage

log = logging.getLogger(__name__)

# Bytes / bytes of the FASTA files, of proteins. Measured of all together: 1.1 if nearly equal, 1.2 in three copies, 1.7
# to 2.0 if no two are equal; and 8 for peptides.
SCRATCH_FACTOR = 1.0  # the scratch folder
OUTPUT_FACTOR = 1.1  # chunks and manifest
LEAST_FACTOR = 0.5  # all together: below it there is surely too little room


def chunk_samples(
    samples: Sequence[tuple[str, Path]],
    chunk_paths: Sequence[Path],
    manifest_path: Path,
    rejected_path: Path,
    counts_path: Path,
    options: ChunkOptions = ChunkOptions(),  # noqa: B008
    earlier: Sequence[Path] = (),
) -> dict:
    """Write the chunks (FASTA), the manifest (Parquet), the rejects (TSV) and the counts (JSON); return the counts.

    Args:
        samples: (name, FASTA path), in order.
        chunk_paths: one file per chunk; some may stay empty.
        manifest_path, rejected_path, counts_path: the other outputs. A scratch folder stands beside the manifest while
            they are made.
        options: what happens to invalid records and to long proteins.
        earlier: Parquet files of earlier results. Their sequences get chunks of their own; nothing else depends on it.

    Raises:
        FastaError: a file cannot be read; or an id is repeated, or a record invalid, and the option for it is `fail`.
        OSError: there is not enough room; the message names the folder, and the remedy.
    """
    with scratch_folder(manifest_path) as scratch:
        _check_room(manifest_path, [path for _, path in samples])
        staged = scratch / "records.parquet"
        sources = _stage(staged, samples, options)
        with database(scratch / "duckdb") as connection:
            records = Records(connection, staged, scratch)
            suffixes = records.suffixes(dict(samples), options.records.on_duplicate_id)
            lengths = records.find_equal()
            places = records.place(lengths, len(chunk_paths), options.embed_dim, earlier)
        with (
            ChunkFiles(chunk_paths) as chunks,
            manifest_writer(manifest_path, sources) as write_rows,
            _rejected_writer(rejected_path) as write_rejected,
        ):
            counts = _Counts(sources)
            for table in _records_with_places(staged, places, suffixes):
                chunks.add(table.filter(table[FIRST]))
                rows = table.select(SCHEMA.names)
                write_rows(rows)
                write_rejected(rows)
                counts.add(rows)
    of_sequences = {
        "unique_sequences": sum(lengths.values()),
        "unique_residues": sum(length * number for length, number in lengths.items()),
    }
    result = counts.of_run() | of_sequences | {"samples": counts.of_samples(), "fasta_sha256": sources}
    write_json(counts_path, result)
    return result


def _check_room(path: Path, fastas: Sequence[Path]) -> None:
    """Say how much room scratch files and outputs need beside `path`; raise OSError if there is too little."""
    size = fasta_bytes(path for path in fastas if path.exists())  # the reader names those that are missing
    log.info(
        "%s: up to %.1f GB for scratch files, removed at the end, and %.1f GB for chunks and manifest",
        path.parent,
        SCRATCH_FACTOR * size / 1e9,
        OUTPUT_FACTOR * size / 1e9,
    )
    check_room(path, LEAST_FACTOR * size, (SCRATCH_FACTOR + OUTPUT_FACTOR) * size, "chunking")


def _stage(staged: Path, samples: Sequence[tuple[str, Path]], options: ChunkOptions) -> dict[str, str]:
    """Write the records of all samples to `staged`; return {sample: sha256 of its FASTA file}."""
    identities = [file_identity(path) for _, path in samples]
    stage(staged, (read_sample(name, path, options) for name, path in samples))
    return {name: sha256_as_read(path, identity) for (name, path), identity in zip(samples, identities, strict=True)}


def _records_with_places(staged: Path, places: Path, suffixes: Mapping[int, str]) -> Iterator[pa.Table]:
    """Yield the staged records in order, in their groups, with the columns of `places` and the ids with suffixes."""
    renamed = sorted(suffixes)
    with pq.ParquetFile(staged) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        start = 0
        for number, placed in enumerate(in_groups(places, sizes)):
            table = file.read_row_group(number)
            end = start + len(table)
            if here := renamed[bisect_left(renamed, start) : bisect_left(renamed, end)]:
                ids = table["id"].to_pylist()
                for ordinal in here:
                    ids[ordinal - start] = suffixes[ordinal]
                table = table.set_column(table.schema.get_field_index("id"), "id", pa.array(ids))
            for name in placed.column_names:
                table = table.append_column(name, placed[name])
            yield table
            start = end


@contextmanager
def _rejected_writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that writes those of its records that were rejected or changed, each with its reason."""
    columns = ["sample", "id", "line", "status", "reason"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        pd.DataFrame(columns=columns).to_csv(handle, sep="\t", index=False)

        def write(rows: pa.Table) -> None:
            unusual = rows.select(columns).filter(pc.not_equal(rows["status"], ACCEPTED))
            unusual.to_pandas().to_csv(handle, sep="\t", index=False, header=False)

        yield write


class _Counts:
    """Records by status, and residues of those that are kept, of each sample; `samples`: their names, in order."""

    def __init__(self, samples: Iterable[str]) -> None:
        self._records = {sample: Counter() for sample in samples}
        self._residues = Counter()

    def add(self, rows: pa.Table) -> None:
        """Add rows of the manifest."""
        groups = rows.group_by(["sample", "status"]).aggregate([([], "count_all"), ("length", "sum")])
        for group in groups.to_pylist():
            self._records[group["sample"]][group["status"]] += group["count_all"]
            self._residues[group["sample"]] += group["length_sum"] if group["status"] != REJECTED else 0

    def of_run(self) -> dict[str, int]:
        """Return the numbers of the whole run."""
        return _as_dict(sum(self._records.values(), Counter()), self._residues.total())

    def of_samples(self) -> dict[str, dict[str, int]]:
        """Return the numbers of each sample."""
        return {sample: _as_dict(records, self._residues[sample]) for sample, records in self._records.items()}


def _as_dict(records: Counter, residues: int) -> dict[str, int]:
    statuses = {status: records[status] for status in STATUSES}
    return {"records": records.total(), **statuses, "residues": residues}
