"""Embed one FASTA file: the work of one embed job."""

import json
import logging
import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import FastaError, OptionError
from ..features import FEATURES
from ..sequences.alphabet import invalid_characters, refget_digest
from ..sequences.fasta import Record, read_records
from ..sequences.tokens import tokenize
from ..store.embeddings import write_chunk
from ..store.residues import ResidueWriter
from ..store.settings import fingerprint
from ..system.files import write_json
from ..system.progress import progress_bar
from ..system.versions import package_versions
from .device import device_name
from .embedder import Embedder
from .options import EmbedOptions
from .residue_arrays import residue_arrays
from .results import Embeddings
from .reuse import look_up

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
) -> dict:
    """Embed the records of a FASTA file into an Arrow file, in their order; return (and write) the statistics.

    Args:
        fasta: normalised sequences; an id that is a refget identifier (`SQ.`) is checked against its sequence.
        out: what determines the embeddings, and nothing else, so that equal work gives equal bytes.
        stats_path: JSON with seconds, memory, device and counters.
        options: how to embed.
        reuse: Parquet files of earlier runs; what they have with the same settings is not embedded again.
        residues: {feature: path} of the HDF5 files for each residue, names of `residues.FEATURES`.
        residue_dtype: of representations there.

    Raises:
        EmbeddingFileError: a file of `reuse` that is damaged.
        FastaError: a record that is not what its digest says, with characters that are no residues, or too long.
        ValueError: residues together with reuse, or of a feature that is not included.
    """
    residues = residues or {}
    _check_residues(residues, options, reuse)
    started = time.perf_counter()
    digests, names, tokens = read_tokens(fasta)
    read = time.perf_counter()
    embedder = Embedder(options)
    _check_lengths(fasta, embedder, tokens, names)
    loaded = time.perf_counter()
    settings = embedder.settings
    log.info("settings: %s", json.dumps(settings))
    earlier = look_up(reuse, digests, settings, embedder.empty_columns(len(tokens)))
    looked_up = time.perf_counter()
    with ResidueWriter(residues, torch.get_num_threads()) as writer:
        keep = _Residues(writer, list(residues), residue_dtype) if residues else None
        work = _Work(embedder, tokens, names, digests, keep, fasta.name)
        embeddings, warm = work.embed(earlier.missing)
        while earlier.found.any() and embedder.settings != settings:
            # After an out-of-memory the budget is another, and what was found may not stand beside it.
            settings = embedder.settings
            earlier = look_up(reuse, digests, settings, embedder.empty_columns(len(tokens)))
            embeddings, warm = work.embed(earlier.missing)
        writer.finish(embedder.settings | {"per_residue": residue_dtype})
    embedded = time.perf_counter()
    lengths = [len(t) - 2 for t in tokens]
    columns, checksums = earlier.completed(digests, embeddings.columns)
    write_chunk(out, digests, lengths, columns, embedder.settings, checksums)
    written = time.perf_counter()
    total, reused_residues = sum(lengths), sum(lengths[i] for i in np.flatnonzero(earlier.found))
    stats = {
        "sequences": len(tokens),
        "residues": total,
        "reused_sequences": int(earlier.found.sum()),
        "reused_residues": reused_residues,
        "packs": embeddings.packs,
        "real_tokens": embeddings.real_tokens,
        "pack_tokens": embeddings.pack_tokens,
        "fill": embeddings.real_tokens / embeddings.pack_tokens if embeddings.packs else None,
        "residues_per_second": (total - reused_residues) / (embedded - warm),
        "seconds": {
            "read": read - started,
            "load": loaded - read,
            "reuse": looked_up - loaded,
            "warm_up": warm - looked_up,
            "embed": embedded - warm,
            "write": written - embedded,
        },
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_gpu_memory_mb": _peak_gpu_memory_mb(embedder.device),
        "recomputed_in_fp32": [names[earlier.missing[i]] for i in embeddings.recomputed],
        "device": device_name(embedder.device),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "versions": package_versions(),
        "settings": embedder.settings,
        "fingerprint": fingerprint(embedder.settings),
    }
    write_json(stats_path, stats)
    log.info(
        "%s: %d sequences, %d residues, of which %d were reused, %.0f residues/s",
        out,
        len(tokens),
        total,
        reused_residues,
        stats["residues_per_second"],
    )
    return stats


def read_tokens(fasta: Path) -> tuple[list[str], list[str], list[np.ndarray]]:
    """Return (digests, names for messages, tokens) of a FASTA file of normalised sequences."""
    digests, names, tokens = [], [], []
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
        digests.append(digest)
        names.append(record.description)
        tokens.append(tokenize(record.sequence))
    return digests, names, tokens


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
        if feature not in FEATURES:
            raise OptionError(f"residues: {feature!r} is not one of {', '.join(FEATURES)}")
        if feature != "representations" and feature not in options.include:
            raise OptionError(f"residues: {feature} must be included to be written (include: {feature})")


def _check_lengths(fasta: Path, embedder: Embedder, tokens: list[np.ndarray], names: list[str]) -> None:
    """Raise FastaError for the first sequence that the model has no positions for."""
    longest = embedder.model.max_residues
    for name, one in zip(names, tokens, strict=True):
        windows = embedder.options.windows
        if longest is not None and min(len(one) - 2, windows.size if windows else len(one)) > longest:
            raise FastaError(
                f"{fasta}: {name} has {len(one) - 2} residues, but {embedder.options.model.name} has positions for "
                f"{longest}; set max_length: {longest} and too_long, or use an ESM-2"
            )


@dataclass(frozen=True)
class _Residues:
    """What is kept of each residue: features, the dtype of representations, and where they go."""

    writer: ResidueWriter
    features: list[str]
    dtype: str

    def write(self, name: str, digest: str, out: dict) -> None:
        """Write the features of one sequence; `out`: what `Embedder.embed` hands out for it."""
        self.writer.write(digest, residue_arrays(out, self.features, self.dtype, name))


@dataclass(frozen=True)
class _Work:
    """The sequences of a job: tokens, names for messages, digests; `residues` where values of each residue are kept."""

    embedder: Embedder
    tokens: list[np.ndarray]
    names: list[str]
    digests: list[str]
    residues: _Residues | None
    title: str

    def embed(self, indices: np.ndarray) -> tuple[Embeddings, float]:
        """Embed the sequences `indices`, in their order; after an out-of-memory all over with half the budget.

        So one budget holds for all. Return the embeddings, and when the last start was warm (time.perf_counter).
        """
        tokens, names = ([values[i] for i in indices] for values in (self.tokens, self.names))
        write = self._write if self.residues else None
        while True:
            try:
                if tokens:
                    self.embedder.warm_up()
                warm = time.perf_counter()
                with progress_bar(self.embedder.residues(tokens), "residues", self.title) as bar:
                    embeddings = self.embedder.embed(tokens, each_sequence=write, progress=bar.update)
                break
            except torch.OutOfMemoryError as error:
                self._halve_budget(error)
            torch.cuda.empty_cache()
            if self.residues:
                self.residues.writer.restart()
        self.embedder.recompute(embeddings, tokens, names, each_sequence=write)
        return embeddings, warm

    def _write(self, index: int, out: dict) -> None:
        self.residues.write(self.names[index], self.digests[index], out)

    def _halve_budget(self, error: Exception) -> None:
        """Halve the budget of tokens, or raise MemoryError that names the longest sequence where it is small."""
        budget = self.embedder.tokens_per_pack
        if budget // 2 < MIN_TOKENS_PER_PACK:
            longest = max(range(len(self.tokens)), key=lambda i: len(self.tokens[i]))
            raise MemoryError(
                f"out of GPU memory even with {budget} tokens a pack; the longest sequence is {self.names[longest]} "
                f"({len(self.tokens[longest]) - 2} residues): use a larger GPU, or device: cpu"
            ) from error
        log.warning("out of GPU memory with %d tokens a pack; again with %d", budget, budget // 2)
        self.embedder.tokens_per_pack = budget // 2


def _peak_gpu_memory_mb(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None
