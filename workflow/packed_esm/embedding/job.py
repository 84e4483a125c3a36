"""Embed one FASTA file: one embed job."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..checkpoints.digest import CheckpointDigest
from ..errors import OptionError, check_one_of
from ..outputs.table import RESIDUES
from ..store.embeddings import in_dtype, write_chunk
from .attempts import Attempts, Embedded
from .clock import Clock
from .earlier_places import EarlierPlaces, own_files
from .embedder import Embedder
from .options import EmbedOptions, RepeatOptions, StorageOptions
from .reading import Sequences, check_lengths, read_tokens
from .repeat import Repeat, random_seed
from .statistics import device_statistics, job_statistics, write_statistics

if TYPE_CHECKING:
    from .kept_residues import KeptResidues

log = logging.getLogger(__name__)


def embed_fasta(
    fasta: Path,
    out: Path,
    stats_path: Path,
    options: EmbedOptions,
    reuse: Sequence[Path] = (),
    residues: Mapping[str, Path] | None = None,
    storage: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    repeat: float = RepeatOptions.repeat,
    repeat_seed: int | None = None,
    own_results: Path | None = None,
    digest: Future[CheckpointDigest] | None = None,
    places: EarlierPlaces = EarlierPlaces(),  # noqa: B008 - frozen
) -> dict:
    """Write the embeddings of a FASTA file to an Arrow file, in its order; write and return the statistics.

    Args:
        fasta: normalised sequences. An id that is a refget identifier (`SQ.`) must match its sequence.
        out: Arrow file. It holds embeddings and settings, but no times or devices, so that equal work gives equal
            bytes.
        stats_path: JSON with seconds, memory, device and counters.
        options: how to embed.
        reuse: Parquet files of earlier runs; sequences that they have with the same settings are copied. With
            `residues`, `../residues` must have their values too.
        residues: {feature: path} of the residue files (HDF5), names of RESIDUES.
        storage: how the values are stored.
        repeat: share of the sequences to embed twice, 0 to 1, see `Repeat`; `out` does not depend on it.
        repeat_seed: seed for choosing them; by default from the operating system. The statistics record it.
        own_results: folder of the results that the job is for. What was merged there with the same settings is copied,
            unless it is damaged.
        digest: of the checkpoint, see `Embedder`.
        places: where earlier results have the sequences; files of which this is not known are searched.

    Raises:
        EmbeddingFileError: a file of `reuse` is damaged.
        FastaError: a record does not match its digest, has characters that are not residues, or is too long.
        EarlierSettingsError: other chunks are copied from results with other settings than those of this job.
        NonFiniteError: a value is beyond the dtype in which it is stored, or not finite even in fp32.
        OptionError: residues of a feature that is not included.
        RepeatError: a sequence that was embedded twice gave different bits; no results are written.
    """
    residues = residues or {}
    _check_residues(residues, options)
    again = Repeat(repeat, stats_path.with_suffix(".repeat.npz"), random_seed() if repeat_seed is None else repeat_seed)
    again.check()
    clock = Clock()
    sequences = read_tokens(fasta)
    clock.lap("read")
    own = own_files(own_results)
    embedder = Embedder(options, digest, load=not (reuse or own))  # earlier results may have all sequences
    check_lengths(fasta, embedder, sequences)
    log.info("settings: %s", json.dumps(embedder.settings))
    if not residues:
        places.check(storage.of_embeddings(embedder.settings))
    clock.lap("load")
    with _kept_residues(residues, sequences, storage) as keep:
        embedded = Attempts(embedder, sequences, storage, keep, again, clock, fasta.name).embed(reuse, own, places)
        if keep:
            keep.writer.finish(storage.of_residues(embedder.settings))
    _write_embeddings(out, sequences, embedded, storage.of_embeddings(embedder.settings))
    clock.lap("write")
    stats = job_statistics(sequences.lengths, embedded.earlier.found, clock.seconds, embedder.settings)
    stats |= device_statistics(embedder, sequences, embedded, again.seed)
    stats["residues_per_second"] = (stats["residues"] - stats["reused_residues"]) / clock.seconds["embed"]
    write_statistics(stats_path, stats, out)
    return stats


@contextmanager
def _kept_residues(
    paths: Mapping[str, Path], sequences: Sequences, storage: StorageOptions
) -> Iterator["KeptResidues | None"]:
    """Yield what keeps the values of each residue, in files that get their names at the end; None if none are kept."""
    if not paths:
        yield None
        return
    from ..store.residues import ResidueWriter  # HDF5, which other jobs do not need
    from .kept_residues import KeptResidues, forms_of

    forms = forms_of(paths, storage)
    with ResidueWriter(paths, forms, torch.get_num_threads()) as writer:
        yield KeptResidues(writer, sequences, forms)


def _write_embeddings(out: Path, sequences: Sequences, embedded: Embedded, settings: dict) -> None:
    """Write the Arrow file of the chunk; reused rows keep their checksums."""
    names = [sequences.names[row] for row in embedded.earlier.missing]
    computed = in_dtype(embedded.embeddings.columns, settings, names)
    columns, checksums = embedded.earlier.completed(sequences.digests, computed)
    write_chunk(out, sequences.digests, sequences.lengths, columns, settings, checksums)


def _check_residues(residues: Mapping[str, Path], options: EmbedOptions) -> None:
    """Raise OptionError if residue files cannot be written with these options."""
    for feature in residues:
        check_one_of("residues", feature, RESIDUES)
        if RESIDUES[feature].in_include and feature not in options.include:
            raise OptionError(f"residues: {feature} must be included to be written (include: {feature})")
