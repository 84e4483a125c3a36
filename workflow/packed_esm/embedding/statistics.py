"""What an embed job tells of itself: seconds of its stages, memory, device and counters."""

import platform
import resource
import time
from collections.abc import Sequence

import numpy as np
import torch

from ..store.settings import fingerprint
from ..system.versions import package_versions
from .device import device_name
from .embedder import Embedder
from .results import Embeddings
from .reuse import Earlier

STAGES = ("read", "load", "reuse", "warm_up", "embed", "repeat", "write")


class Clock:
    """Seconds of each stage; `lap` gives a stage all the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def restart(self) -> None:
        """Count what is thrown away, and made once more, as warming up."""
        self.lap("warm_up")
        for stage in ("embed", "repeat"):
            self.seconds["warm_up"] += self.seconds[stage]
            self.seconds[stage] = 0.0


def job_statistics(
    embedder: Embedder,
    lengths: Sequence[int],
    names: Sequence[str],
    earlier: Earlier,
    embeddings: Embeddings,
    seconds: dict[str, float],
) -> dict:
    """Return the statistics of a job, as plain JSON values.

    Args:
        embedder: that did the work.
        lengths, names: of all sequences, in residues.
        earlier: what was taken from earlier results.
        embeddings: of the others.
        seconds: of each stage.
    """
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
        "recomputed_in_fp32": [names[earlier.missing[i]] for i in embeddings.recomputed],
        "device": device_name(embedder.device),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "versions": package_versions(),
        "settings": embedder.settings,
        "fingerprint": fingerprint(embedder.settings),
    }
