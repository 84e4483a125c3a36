"""What fits into memory: weights on the GPU or streamed to it, tokens of a pack, and tokens of a sweep.

A sweep is a number of packs that go through each layer together, so that a streamed layer is copied once for all.
"""

import logging
from dataclasses import dataclass, replace

import torch

from ..model.layers import SLOTS
from ..system.memory import available_memory

log = logging.getLogger(__name__)

CPU_TOKENS_PER_PACK = 2048  # its activations stay in the cache
CPU_TOKENS_PER_SWEEP = 4 * CPU_TOKENS_PER_PACK
# Per token and embedding dimension: fp32 residual stream and its copies, q/k/v, and the 4 E wide feed-forward.
GPU_BYTES_PER_TOKEN_AND_DIM = 64
# Of a pack that waits in a sweep: the fp32 residual stream and what is to be added to it; each layer that is kept.
WAITING_BYTES, KEPT_BYTES = 8, 4
# A layer of 15B is copied to an H100 in the time of 9,000 tokens; more would only delay results.
MOST_TOKENS_PER_SWEEP = 65536
LEAST_TOKENS_PER_PACK = 2048  # of `auto`
USABLE = 0.85  # of a GPU's memory: a CUDA context, kernels, a desktop, and gaps take the rest
MOST_USABLE = 0.97  # beyond this, resident weights with a small pack are hopeless
USABLE_FOR_PACKS = 0.6  # of it for the weights and one pack
HOST_RESERVE = 4 * 10**9  # bytes of the host's memory beside the page-locked weights
LAYER_PARAMETERS = 12  # for each E * E
# int8: two thirds of the parameters (the feed-forward) have one byte, the rest are bf16.
BYTES_OF_PARAMETER = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 4 / 3}


@dataclass(frozen=True)
class MemoryPlan:
    """A model on a device.

    Attributes:
        device: where it runs.
        num_layers, embed_dim: of the model.
        dtype: of the matrix products, a name of `device.DTYPES`.
    """

    device: torch.device
    num_layers: int
    embed_dim: int
    dtype: str

    @property
    def _layer_bytes(self) -> float:
        return LAYER_PARAMETERS * self.embed_dim**2 * BYTES_OF_PARAMETER[self.dtype]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights of all layers in this dtype."""
        return int(self._layer_bytes * self.num_layers)

    def fits(self, beside: int = 0, usable: float = USABLE) -> bool:
        """Return whether all weights and a small pack fit on the device, beside so many bytes: for `weights: auto`.

        Args:
            beside: bytes.
            usable: share of the GPU's memory.
        """
        if self.device.type != "cuda":
            return True
        pack = LEAST_TOKENS_PER_PACK * self._token_bytes
        return self.weight_bytes + beside + pack <= usable * gpu_memory(self.device)

    @property
    def _token_bytes(self) -> int:
        return self.embed_dim * GPU_BYTES_PER_TOKEN_AND_DIM

    def tokens_per_pack(self) -> int:
        """Return the budget of tokens for the device and the model, from the device's total memory, a power of two.

        Never from the free memory of the moment, nor from where the weights are by choice: the budget is part of what
        determines the bits. Where resident weights fit with little to spare, packs are small, as in version 0.3.0,
        though `auto` streams them.
        """
        if self.device.type != "cuda":
            return CPU_TOKENS_PER_PACK
        total, width = gpu_memory(self.device), self.embed_dim
        layers = self.num_layers if self.fits(usable=MOST_USABLE) else SLOTS
        weights = 2 * LAYER_PARAMETERS * width**2 * layers
        budget = 131072 if width <= 480 else 65536 if width <= 640 else 32768
        while budget > LEAST_TOKENS_PER_PACK and weights + budget * self._token_bytes > USABLE_FOR_PACKS * total:
            budget //= 2
        return budget

    def tokens_per_sweep(self, tokens_per_pack: int, kept_layers: int, weights: str) -> int:
        """Return how many tokens may go through each layer together; fewer than those of a pack: each pack alone.

        Args:
            tokens_per_pack: the budget of a pack.
            kept_layers: layers whose rows are kept, without the last one.
            weights: where they are, a name of `layers.LAYERS`.
        """
        if weights == "resident":
            return 0
        if self.device.type != "cuda":
            return CPU_TOKENS_PER_SWEEP
        layers = SLOTS * self._layer_bytes * (2 if weights == "file" else 1)  # also those of a layer that is made
        head = 4 * self.embed_dim**2
        free = USABLE * gpu_memory(self.device) - layers - head - tokens_per_pack * self._token_bytes
        of_token = self.embed_dim * (WAITING_BYTES + KEPT_BYTES * kept_layers)
        return min(MOST_TOKENS_PER_SWEEP, max(0, int(free / of_token)))

    def placement(self, weights: str, beside_reference: bool = False) -> str:
        """Return where the weights are, a name of `layers.LAYERS`, for a word of `options.WEIGHTS`.

        They are streamed from the file if they and HOST_RESERVE do not fit into the host's memory; `beside_reference`:
        together with the weights in fp32. Streaming is logged.
        """
        if weights == "resident" or (weights == "auto" and self.fits()):
            return "resident"
        size, there = _gb(self.weight_bytes), available_memory()
        what = f"{size}, streamed"
        if weights == "auto":
            what = f"{size} do not fit into the {_gb(gpu_memory(self.device))} of the GPU; streamed"
        reference = replace(self, dtype="fp32").weight_bytes if beside_reference else 0
        if there is None or self.weight_bytes + reference + HOST_RESERVE <= there:
            log.warning("weights: %s from the memory of the host", what)
            return "host"
        log.warning("weights: %s from the file, at the rate of its disk: the host has %s of memory", what, _gb(there))
        return "file"


def default_tokens_per_pack(device: torch.device, num_layers: int, embed_dim: int) -> int:
    """Return `tokens_per_pack` of a model in half precision."""
    return MemoryPlan(device, num_layers, embed_dim, "fp16").tokens_per_pack()


def gpu_memory(device: torch.device) -> int:
    """Return the bytes of a GPU, used or not, or the share that `set_per_process_memory_fraction` leaves."""
    share = torch.cuda.get_per_process_memory_fraction(device.index)
    return int(share * torch.cuda.get_device_properties(device).total_memory)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
