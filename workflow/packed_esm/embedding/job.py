"""Embed one FASTA file: the work of one embed job."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..errors import FastaError, OptionError, check_one_of
from ..features import FEATURES, RESIDUE_DTYPES
from ..sequences.alphabet import invalid_characters, refget_digest
from ..sequences.fasta import Record, read_records
from ..sequences.tokens import tokenize
from ..store.embeddings import write_chunk
from ..store.residues import ResidueWriter, residue_checksum
from ..system.files import write_json
from ..system.progress import progress_bar
from .embedder import Embedder
from .options import EmbedOptions, RepeatOptions
from .repeat import Repeat, chance
from .residue_arrays import residue_arrays
from .results import Embeddings
from .reuse import Earlier, look_up
from .statistics import Clock, job_statistics

log = logging.getLogger(__name__)

MIN_TOKENS_PER_PACK = 1024


def embed_fasta(
    fasta: Path,
    out: Path,
    stats_path: Path,
    options: EmbedOptions,
    reuse: Sequence[Path] = (),
    residues: Mapping[str, Path] | None = None,
    residue_dtype: str = "float16",
    repeat: float = RepeatOptions.repeat,
    repeat_seed: int | None = None,
) -> dict:
    """Embed the records of a FASTA file into an Arrow file, in their order; return (and write) the statistics.

    Args:
        fasta: normalised sequences; an id that is a refget identifier (`SQ.`) is checked against its sequence.
        out: what determines the embeddings, and nothing else, so that equal work gives equal bytes.
        stats_path: JSON with seconds, memory, device and counters.
        options: how to embed.
        reuse: Parquet files of earlier runs; what they have with the same settings is not embedded again.
        residues: {feature: path} of the HDF5 files for each residue, names of FEATURES.
        residue_dtype: of representations there.
        repeat: share of the sequences to embed twice, 0 to 1, see `Repeat`; it determines no byte of `out`.
        repeat_seed: of their choice; by default from the operating system. The statistics have it.

    Raises:
        EmbeddingFileError: a file of `reuse` that is damaged.
        FastaError: a record that is not what its digest says, with characters that are no residues, or too long.
        OptionError: residues together with reuse, or of a feature that is not included.
        RepeatError: a sequence that was embedded twice gave different bits; no file of results is written.
    """
    residues = residues or {}
    _check_residues(residues, options, reuse)
    check_one_of("residue_dtype", residue_dtype, RESIDUE_DTYPES)
    again = Repeat(repeat, stats_path.with_suffix(".repeat.npz"), chance() if repeat_seed is None else repeat_seed)
    again.check()
    clock = Clock()
    sequences = read_tokens(fasta)
    clock.lap("read")
    embedder = Embedder(options)
    _check_lengths(fasta, embedder, sequences)
    log.info("settings: %s", json.dumps(embedder.settings))
    clock.lap("load")
    with ResidueWriter(residues, torch.get_num_threads()) as writer:
        keep = _Residues(writer, sequences, list(residues), residue_dtype) if residues else None
        work = _Work(embedder, sequences, keep, again, clock, fasta.name)
        earlier, embeddings, repeated = _embed_missing(work, reuse)
        writer.finish(embedder.settings | {"per_residue": residue_dtype})
    lengths = [len(t) - 2 for t in sequences.tokens]
    columns, checksums = earlier.completed(sequences.digests, embeddings.columns)
    write_chunk(out, sequences.digests, lengths, columns, embedder.settings, checksums)
    clock.lap("write")
    stats = job_statistics(embedder, lengths, sequences.names, earlier, embeddings, clock.seconds)
    stats |= {"repeated_sequences": repeated, "repeat_seed": again.seed}
    write_json(stats_path, stats)
    log.info(
        "%s: %d sequences, %d residues, of which %d were reused, %.0f residues/s, %d sequences repeated",
        out,
        stats["sequences"],
        stats["residues"],
        stats["reused_residues"],
        stats["residues_per_second"],
        repeated,
    )
    return stats


class Sequences(NamedTuple):
    """The sequences of a job: digests, names for messages, and tokens, uint8 [L + 2] each."""

    digests: list[str]
    names: list[str]
    tokens: list[np.ndarray]


def read_tokens(fasta: Path) -> Sequences:
    """Return the sequences of a FASTA file, which are normalised."""
    sequences = Sequences([], [], [])
    for record in _normalised_records(fasta):
        unusable = not record.sequence or invalid_characters(record.sequence)
        has_digest = record.id.startswith("SQ.")
        if unusable and not has_digest:
            raise FastaError(
                f"{fasta}, line {record.line}: record {record.id!r} is empty or has characters that are no residue "
                f"letters ({invalid_characters(record.sequence)[:10]!r}); run chunk_fasta.py on the file first"
            )
        digest = "" if unusable else refget_digest(record.sequence)
        if has_digest and record.id != digest:
            raise FastaError(
                f"{fasta}, line {record.line}: the sequence of {record.description} is not that of its digest; "
                "the file was changed, remove it and run again"
            )
        sequences.digests.append(digest)
        sequences.names.append(record.description)
        sequences.tokens.append(tokenize(record.sequence))
    return sequences


def _normalised_records(fasta: Path) -> Iterator[Record]:
    try:
        yield from read_records(fasta)
    except FastaError as error:
        raise FastaError(f"{error}; or, if chunk_fasta.py wrote it, remove it and run again") from error


def _check_residues(residues: Mapping[str, Path], options: EmbedOptions, reuse: Sequence[Path]) -> None:
    """Raise ValueError where files for each residue cannot be made as asked for."""
    if residues and reuse:
        raise OptionError("reuse: earlier results hold no values for each residue; leave out one of the two")
    for feature in residues:
        check_one_of("residues", feature, FEATURES)
        if feature != "representations" and feature not in options.include:
            raise OptionError(f"residues: {feature} must be included to be written (include: {feature})")


def _check_lengths(fasta: Path, embedder: Embedder, sequences: Sequences) -> None:
    """Raise FastaError for the first sequence that the model has no positions for."""
    longest = embedder.model.max_residues
    for name, one in zip(sequences.names, sequences.tokens, strict=True):
        windows = embedder.options.windows
        if longest is not None and min(len(one) - 2, windows.size if windows else len(one)) > longest:
            raise FastaError(
                f"{fasta}: {name} has {len(one) - 2} residues, but {embedder.options.model.name} has positions for "
                f"{longest}; set long_proteins.max_length: {longest} and long_proteins.action, or use an ESM-2"
            )


@dataclass(frozen=True)
class _Residues:
    """What is kept of each residue: features, the dtype of representations, and where they go."""

    writer: ResidueWriter
    sequences: Sequences
    features: list[str]
    dtype: str

    def write(self, index: int, out: dict) -> None:
        """Write the features of one sequence; `out`: what `Embedder.embed` hands out for it."""
        self.writer.write(self.sequences.digests[index], self._arrays(index, out))

    def differing(self, index: int, out: dict) -> dict[str, np.ndarray]:
        """Return the features of a sequence that have another checksum than what was written."""
        digest = self.sequences.digests[index]
        arrays = self._arrays(index, out).items()
        return {f: x for f, x in arrays if residue_checksum(digest, x) != self.writer.checksum(f, digest)}

    def kept(self, index: int, feature: str) -> np.ndarray:
        """Return what was written."""
        return self.writer.values(feature, self.sequences.digests[index])

    def _arrays(self, index: int, out: dict) -> dict[str, np.ndarray]:
        return residue_arrays(out, self.features, self.dtype, self.sequences.names[index])


@dataclass(frozen=True)
class _Work:
    """The work of a job; `residues` where values of each residue are kept, and `repeat` what is embedded twice."""

    embedder: Embedder
    sequences: Sequences
    residues: _Residues | None
    repeat: Repeat
    clock: Clock
    title: str

    def embed(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        """Embed the sequences `indices`, in their order; after an out-of-memory all over with half the budget.

        So one budget holds for all. Return the embeddings, and how many sequences were repeated.
        """
        while True:
            self.clock.restart()
            try:
                return self._attempt(indices)
            except torch.OutOfMemoryError as error:
                self._halve_budget(error)
            torch.cuda.empty_cache()
            if self.residues:
                self.residues.writer.restart()

    def _attempt(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        tokens, names = ([values[i] for i in indices] for values in (self.sequences.tokens, self.sequences.names))
        write = self.residues.write if self.residues else None
        if tokens:
            self.embedder.warm_up()
        self.clock.lap("warm_up")
        with progress_bar(self.embedder.residues(tokens), "residues", self.title) as bar:
            embeddings = self.embedder.embed(tokens, each_sequence=write, progress=bar.update)
        self.clock.lap("embed")
        repeated = self.repeat.compare(self.embedder, tokens, names, embeddings, self.residues)
        self.clock.lap("repeat")
        self.embedder.recompute(embeddings, tokens, names, each_sequence=write)
        self.clock.lap("embed")
        return embeddings, repeated

    def _halve_budget(self, error: Exception) -> None:
        """Halve the budget of tokens, or raise MemoryError that names the longest sequence where it is small."""
        budget, tokens = self.embedder.tokens_per_pack, self.sequences.tokens
        if budget // 2 < MIN_TOKENS_PER_PACK:
            longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
            raise MemoryError(
                f"out of GPU memory even with {budget} tokens a pack; the longest sequence is "
                f"{self.sequences.names[longest]} ({len(tokens[longest]) - 2} residues): use a larger GPU, or "
                "device: cpu"
            ) from error
        log.warning("out of GPU memory with %d tokens a pack; again with %d", budget, budget // 2)
        self.embedder.tokens_per_pack = budget // 2


def _embed_missing(work: _Work, reuse: Sequence[Path]) -> tuple[Earlier, Embeddings, int]:
    """Take what earlier results have and embed the others; return both, and how many sequences were repeated.

    After an out-of-memory the budget is another, and what was found may not stand beside it: it is looked up again.
    """
    embedder, sequences = work.embedder, work.sequences
    while True:
        settings = embedder.settings
        earlier = look_up(reuse, sequences.digests, settings, embedder.empty_columns(len(sequences.tokens)))
        work.clock.lap("reuse")
        embeddings, repeated = work.embed(earlier.missing)
        if not earlier.found.any() or embedder.settings == settings:
            return earlier, embeddings, repeated
