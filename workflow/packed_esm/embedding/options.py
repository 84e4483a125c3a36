"""How to embed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import check_one_of
from ..kernels.fp8 import FP8
from ..sequences.windows import ResidueWindows

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": FP8}
ON_NONFINITE = ("recompute", "fail")


@dataclass(frozen=True)
class EmbedOptions:
    """How to embed.

    `layers` as fair-esm counts them, negative allowed; `include`: what else to compute, names of INCLUDE;
    `tokens_per_pack` None: by device and model; `windows`: for longer proteins, see `long_proteins`.
    """

    model: Path
    layers: Sequence[int] = (-1,)
    poolings: Sequence[str] = ("mean",)
    include: Sequence[str] = ()
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    tokens_per_pack: int | None = None
    on_nonfinite: str = "recompute"
    windows: ResidueWindows | None = None

    def __post_init__(self) -> None:
        check_one_of("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
