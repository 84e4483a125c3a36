"""Statistics of an embed job: seconds, memory, device and counters."""

import logging
import platform
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..store.settings import fingerprint
from ..system.files import write_json
from ..system.versions import package_versions

if TYPE_CHECKING:
    from .attempts import Embedded
    from .embedder import Embedder
    from .reading import Sequences

log = logging.getLogger(__name__)

COPIED = "no device: copied"  # where a job copied all of its embeddings
OF_COPIES = {
    "packs": 0,
    "real_tokens": 0,
    "pack_tokens": 0,
    "fill": None,
    "residues_per_second": 0.0,
    "peak_gpu_memory_mb": None,
    "repeated_sequences": 0,
    "recomputed_in_fp32": [],
    "device": COPIED,
    "device_class": COPIED,
    "weights": "none",
    "threads": 1,
    "repeat_seed": None,
}


def job_statistics(
    lengths: Sequence[int], found: np.ndarray, seconds: Mapping[str, float], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the statistics of any job, as plain JSON values; those of its device are to be added.

    Args:
        lengths: of the sequences.
        found: bool [n], whether each sequence was found in earlier results.
        seconds: of each stage.
        settings: that determine the embeddings.
    """
    return {
        "sequences": len(lengths),
        "residues": sum(lengths),
        "reused_sequences": int(found.sum()),
        "reused_residues": sum(lengths[i] for i in np.flatnonzero(found)),
        "seconds": dict(seconds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "host": platform.node(),
        "versions": package_versions(),
        "settings": dict(settings),
        "fingerprint": fingerprint(dict(settings)),
    }


def device_statistics(
    embedder: "Embedder", sequences: "Sequences", embedded: "Embedded", repeat_seed: int
) -> dict[str, Any]:
    """Return the statistics of what a job did on its device, as plain JSON values: the keys of OF_COPIES, but the rate.

    Args:
        embedder: of the job.
        sequences: of the job.
        embedded: their embeddings.
        repeat_seed: for choosing those that were embedded twice.
    """
    import torch

    from .device import device_class, device_name

    earlier, embeddings, device = embedded.earlier, embedded.embeddings, embedder.device
    return {
        "packs": embeddings.packs,
        "real_tokens": embeddings.real_tokens,
        "pack_tokens": embeddings.pack_tokens,
        "fill": embeddings.real_tokens / embeddings.pack_tokens if embeddings.packs else None,
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None,
        "repeated_sequences": embedded.repeated,
        "recomputed_in_fp32": [sequences.names[earlier.missing[i]] for i in embeddings.recomputed],
        "device": device_name(device),
        "device_class": device_class(device),
        "weights": embedder.weights,
        "threads": torch.get_num_threads(),
        "repeat_seed": repeat_seed,
        "checkpoint": embedder.checkpoint._asdict(),
    }


def write_statistics(path: Path, stats: Mapping[str, Any], out: Path) -> None:
    """Write the statistics, and log how much was done for the file `out`."""
    write_json(path, dict(stats))
    log.info(
        "%s: %d sequences, %d residues, of which %d were reused, %.0f residues/s, %d sequences repeated",
        out,
        stats["sequences"],
        stats["residues"],
        stats["reused_residues"],
        stats["residues_per_second"],
        stats["repeated_sequences"],
    )
