"""Embed one FASTA file: the work of one embed job."""

import json
import logging
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch

from .embed import Embedder, Embeddings, EmbedOptions, device_name
from .fasta import FastaError, invalid_characters, read_records, refget_digest
from .files import write_text
from .progress import progress_bar
from .settings import fingerprint
from .tokenize import tokenize
from .writers import write_chunk

log = logging.getLogger(__name__)

MIN_TOKENS_PER_PACK = 1024


def embed_fasta(fasta: Path, out: Path, stats_path: Path, options: EmbedOptions) -> dict:
    """Embed the records of a FASTA file into an Arrow file, in their order; return (and write) the statistics.

    Args:
        fasta: normalised sequences; an id that is a refget identifier (`SQ.`) is checked against its sequence.
        out: what determines the embeddings, and nothing else, so that equal work gives equal bytes.
        stats_path: JSON with seconds, memory, device and counters.
        options: how to embed.

    Raises:
        FastaError: a record that is not what its digest says, or with characters that are no residues.
    """
    started = time.perf_counter()
    digests, names, tokens = read_tokens(fasta)
    read = time.perf_counter()
    embedder = Embedder(options)
    loaded = time.perf_counter()
    log.info("settings: %s", json.dumps(embedder.settings))
    embeddings, warm = _embed_within_memory(embedder, tokens, names, fasta.name)
    embedder.recompute(embeddings, tokens, names)
    embedded = time.perf_counter()
    lengths = [len(t) - 2 for t in tokens]
    write_chunk(out, digests, lengths, embeddings.columns, embedder.settings)
    written = time.perf_counter()
    residues = sum(lengths)
    stats = {
        "sequences": len(tokens),
        "residues": residues,
        "packs": embeddings.packs,
        "real_tokens": embeddings.real_tokens,
        "pack_tokens": embeddings.pack_tokens,
        "fill": embeddings.real_tokens / embeddings.pack_tokens if embeddings.packs else None,
        "residues_per_second": residues / (embedded - warm),
        "seconds": {
            "read": read - started,
            "load": loaded - read,
            "warm_up": warm - loaded,
            "embed": embedded - warm,
            "write": written - embedded,
        },
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_gpu_memory_mb": _peak_gpu_memory_mb(embedder.device),
        "recomputed_in_fp32": [names[i] for i in embeddings.recomputed],
        "device": device_name(embedder.device),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "python": platform.python_version(),
        "settings": embedder.settings,
        "fingerprint": fingerprint(embedder.settings),
    }
    write_text(stats_path, json.dumps(stats, indent=2) + "\n")
    log.info(
        "%s: %d sequences, %d residues, %.0f residues/s",
        out,
        len(tokens),
        residues,
        stats["residues_per_second"],
    )
    return stats


def read_tokens(fasta: Path) -> tuple[list[str], list[str], list[np.ndarray]]:
    """Return (digests, names for messages, tokens) of a FASTA file of normalised sequences."""
    digests, names, tokens = [], [], []
    for record in read_records(fasta):
        if invalid_characters(record.sequence) or not record.sequence:
            raise FastaError(
                f"{fasta}, line {record.line}: record {record.id!r} is empty or has characters that are no residue "
                f"letters ({invalid_characters(record.sequence)[:10]!r}); run chunk_fasta.py on the file first"
            )
        digest = refget_digest(record.sequence)
        if record.id.startswith("SQ.") and record.id != digest:
            raise FastaError(
                f"{fasta}, line {record.line}: the sequence of {record.description} is not that of its digest; "
                "the file was changed, remove it and run again"
            )
        digests.append(digest)
        names.append(record.description)
        tokens.append(tokenize(record.sequence))
    return digests, names, tokens


def _embed_within_memory(
    embedder: Embedder, tokens: list[np.ndarray], names: list[str], title: str
) -> tuple[Embeddings, float]:
    """Embed all sequences; after an out-of-memory start all over with half the budget, so that one holds for all.

    Return the embeddings, and when the last start was warm (seconds of time.perf_counter).
    """
    total = sum(len(t) - 2 for t in tokens)
    while True:
        try:
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
