"""Statistics of an embed job: seconds, memory, device and counters."""

import platform
import resource

import numpy as np
import torch

from ..store.settings import fingerprint
from ..system.versions import package_versions
from .attempts import Embedded
from .device import device_class, device_name
from .embedder import Embedder
from .reading import Sequences


def job_statistics(embedder: Embedder, sequences: Sequences, embedded: Embedded, seconds: dict[str, float]) -> dict:
    """Return the statistics of a job, as plain JSON values.

    Args:
        embedder: of the job.
        sequences: of the job.
        embedded: their embeddings.
        seconds: of each stage.
    """
    earlier, embeddings, lengths = embedded.earlier, embedded.embeddings, sequences.lengths
    total, reused_residues = sum(lengths), sum(lengths[i] for i in np.flatnonzero(earlier.found))
    on_gpu = embedder.device.type == "cuda"
    return {
        "sequences": len(lengths),
        "residues": total,
        "reused_sequences": int(earlier.found.sum()),
        "reused_residues": reused_residues,
        "packs": embeddings.packs,
        "real_tokens": embeddings.real_tokens,
        "pack_tokens": embeddings.pack_tokens,
        "fill": embeddings.real_tokens / embeddings.pack_tokens if embeddings.packs else None,
        "residues_per_second": (total - reused_residues) / seconds["embed"],
        "seconds": seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated(embedder.device) // 2**20 if on_gpu else None,
        "repeated_sequences": embedded.repeated,
        "recomputed_in_fp32": [sequences.names[earlier.missing[i]] for i in embeddings.recomputed],
        "device": device_name(embedder.device),
        "device_class": device_class(embedder.device),
        "weights": embedder.weights,
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "versions": package_versions(),
        "checkpoint": embedder.checkpoint._asdict(),
        "settings": embedder.settings,
        "fingerprint": fingerprint(embedder.settings),
    }
