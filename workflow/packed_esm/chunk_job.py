"""Embed one FASTA file: the work of one embed job."""

import json
import logging
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from .embed import Embedder, Embeddings, EmbedOptions, device_name
from .fasta import FastaError, Record, invalid_characters, read_records, refget_digest
from .files import write_json
from .progress import progress_bar
from .reuse import Earlier, look_up
from .settings import fingerprint
from .tokenize import tokenize
from .writers import write_chunk

log = logging.getLogger(__name__)

MIN_TOKENS_PER_PACK = 1024


def embed_fasta(fasta: Path, out: Path, stats_path: Path, options: EmbedOptions, reuse: Sequence[Path] = ()) -> dict:
    """Embed the records of a FASTA file into an Arrow file, in their order; return (and write) the statistics.

    Args:
        fasta: normalised sequences; an id that is a refget identifier (`SQ.`) is checked against its sequence.
        out: what determines the embeddings, and nothing else, so that equal work gives equal bytes.
        stats_path: JSON with seconds, memory, device and counters.
        options: how to embed.
        reuse: Parquet files of earlier runs; what they have with the same settings is not embedded again.

    Raises:
        EmbeddingFileError: a file of `reuse` that is damaged.
        FastaError: a record that is not what its digest says, or with characters that are no residues.
    """
    started = time.perf_counter()
    digests, names, tokens = read_tokens(fasta)
    read = time.perf_counter()
    embedder = Embedder(options)
    loaded = time.perf_counter()
    settings = embedder.settings
    log.info("settings: %s", json.dumps(settings))
    earlier = look_up(reuse, digests, settings, embedder.model.embed_dim)
    looked_up = time.perf_counter()
    embeddings, warm = _embed_missing(embedder, earlier, tokens, names, fasta.name)
    while earlier.found.any() and embedder.settings != settings:
        # After an out-of-memory the budget is another, and what was found may not stand beside it.
        settings = embedder.settings
        earlier = look_up(reuse, digests, settings, embedder.model.embed_dim)
        embeddings, warm = _embed_missing(embedder, earlier, tokens, names, fasta.name)
    embedded = time.perf_counter()
    lengths = [len(t) - 2 for t in tokens]
    columns, checksums = earlier.completed(digests, embeddings.columns)
    write_chunk(out, digests, lengths, columns, embedder.settings, checksums)
    written = time.perf_counter()
    residues, reused_residues = sum(lengths), sum(lengths[i] for i in np.flatnonzero(earlier.found))
    stats = {
        "sequences": len(tokens),
        "residues": residues,
        "reused_sequences": int(earlier.found.sum()),
        "reused_residues": reused_residues,
        "packs": embeddings.packs,
        "real_tokens": embeddings.real_tokens,
        "pack_tokens": embeddings.pack_tokens,
        "fill": embeddings.real_tokens / embeddings.pack_tokens if embeddings.packs else None,
        "residues_per_second": (residues - reused_residues) / (embedded - warm),
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
        "python": platform.python_version(),
        "settings": embedder.settings,
        "fingerprint": fingerprint(embedder.settings),
    }
    write_json(stats_path, stats)
    log.info(
        "%s: %d sequences, %d residues, of which %d were reused, %.0f residues/s",
        out,
        len(tokens),
        residues,
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


def _embed_missing(
    embedder: Embedder, earlier: Earlier, tokens: list[np.ndarray], names: list[str], title: str
) -> tuple[Embeddings, float]:
    """Embed the sequences that earlier results do not have, in their order; see `_embed_within_memory`."""
    missing_tokens, missing_names = ([values[i] for i in earlier.missing] for values in (tokens, names))
    embeddings, warm = _embed_within_memory(embedder, missing_tokens, missing_names, title)
    embedder.recompute(embeddings, missing_tokens, missing_names)
    return embeddings, warm


def _embed_within_memory(
    embedder: Embedder, tokens: list[np.ndarray], names: list[str], title: str
) -> tuple[Embeddings, float]:
    """Embed all sequences; after an out-of-memory start all over with half the budget, so that one holds for all.

    Return the embeddings, and when the last start was warm (seconds of time.perf_counter).
    """
    total = sum(len(t) - 2 for t in tokens)
    while True:
        try:
            if tokens:
                embedder.warm_up()
            warm = time.perf_counter()
            with progress_bar(total, "residues", title) as bar:
                return embedder.embed(tokens, progress=bar.update), warm
        except torch.OutOfMemoryError as error:
            smaller = embedder.tokens_per_pack // 2
            if smaller < MIN_TOKENS_PER_PACK:
                longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
                raise MemoryError(
                    f"out of GPU memory even with {embedder.tokens_per_pack} tokens a pack; the longest sequence is "
                    f"{names[longest]} ({len(tokens[longest]) - 2} residues): use a larger GPU, or device: cpu"
                ) from error
            log.warning("out of GPU memory with %d tokens a pack; again with %d", embedder.tokens_per_pack, smaller)
        torch.cuda.empty_cache()
        embedder.tokens_per_pack = smaller


def _peak_gpu_memory_mb(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None
