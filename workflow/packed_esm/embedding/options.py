"""How to embed."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from ..options import Options, option
from ..outputs.table import INCLUDE, POOLINGS
from ..sequences.windows import ResidueWindows

ON_NONFINITE = ("recompute", "fail")
WEIGHTS = ("auto", "resident", "streamed")
OF_NO_VALUE = ("weights",)  # keys that no value depends on: a change of them reruns nothing


@dataclass(frozen=True)
class EmbedOptions(Options):
    """How to embed.

    `layers` counts as fair-esm does and may be negative. `tokens_per_pack` None: the default for device and model.
    `windows` applies to proteins longer than a window, see `long_proteins`.
    """

    model: Path = option(
        MISSING,
        "model",
        "demo, the name of a published model, the path of a fair-esm .pt file, of a Hugging Face folder or of a LoRA "
        "adapter, or the id of a model in Hugging Face's cache",
    )
    layers: Sequence[int] = option(
        (-1,),
        "layers",
        "Layers to keep; 0 is the embedding, N the last layer after the final norm, negative numbers count from the "
        "end",
        kind=int,
    )
    poolings: Sequence[str] = option(
        ("mean",),
        "pooling",
        "How the residues of a protein become one vector; std divides by the number of residues",
        words=tuple(POOLINGS),
    )
    include: Sequence[str] = option(
        (),
        "include",
        "Further outputs; log_likelihood, pseudo_log_likelihood and pseudo_log_likelihood_mean are columns, the others "
        "are written to residue files; those of masked positions take one forward per residue",
        words=INCLUDE,
    )
    device: str = option(
        "auto",
        "device",
        "Device for embedding and validation; auto is cuda if there is such a GPU, else mps (Apple), else cpu",
        words=("auto", "cpu", "cuda", "mps"),
    )
    dtype: str = option(
        "auto",
        "dtype",
        "Data type of the matrix products; auto is fp32 on a CPU and fp16 on a GPU, fp8 needs Hopper or newer",
        words=("auto", "fp32", "fp16", "bf16", "fp8"),
    )
    attention: str = option(
        "auto",
        "attention",
        "Attention backend; auto uses the fastest that runs",
        words=("auto", "triton", "flash-attn", "flash-attn-3", "torch-varlen", "sdpa", "padded"),
    )
    tokens_per_pack: int | None = option(
        None,
        "tokens_per_pack",
        "Tokens of one forward pass; auto depends on the device and the model",
        kind=int,
        none="auto",
    )
    on_nonfinite: str = option(
        "recompute",
        "on_nonfinite",
        "What happens to a sequence whose values are not finite; recompute repeats it in fp32, fail stops the run",
        words=ON_NONFINITE,
    )
    windows: ResidueWindows | None = None
    weights: str = option(
        "auto",
        "weights",
        "Where the weights are; streamed copies them to the GPU layer by layer, auto does so if they do not fit there; "
        "no value depends on it",
        words=WEIGHTS,
    )


@dataclass(frozen=True)
class RepeatOptions(Options):
    """The share of the sequences that an embed job embeds twice; embeddings do not depend on it."""

    repeat: float = option(
        0.02,
        "validation.repeat",
        "Share of the sequences that each embed job embeds twice; a job fails if the two results differ",
        kind=float,
    )
