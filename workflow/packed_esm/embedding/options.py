"""How to embed."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from ..errors import check_one_of
from ..options import Options, option
from ..outputs.table import CONTACT_MAPS, INCLUDE, OTHER_DTYPES, POOLINGS, RESIDUE_DTYPES
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
        "adapter, or the id of a model in Hugging Face's cache; ESM C too",
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
        "Data type of the matrix products; auto is fp32 on a CPU and fp16 on a GPU, int8 needs Hopper or a "
        "CPU with VNNI or AMX",
        words=("auto", "fp32", "fp16", "bf16", "int8"),
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
class StorageOptions(Options):
    """How computed values are stored.

    `residue_dtype` is that of the representation of each residue, one of RESIDUE_DTYPES; the key `per_residue` sets it,
    where they are kept at all.
    """

    residue_dtype: str = "float16"
    include_dtype: str = option(
        "float32",
        "include_dtype",
        "Data type of the other residue files; logits, contacts, marginals",
        words=OTHER_DTYPES,
    )
    contact_maps: str = option(
        "square",
        "contact_maps",
        "What is stored of contacts, which are symmetric; triangle is the diagonal and what is above it, row by row",
        words=CONTACT_MAPS,
    )
    pooled_dtype: str = option(
        "float32", "pooled_dtype", "Data type of the pooled vectors in Parquet, npy and h5 files", words=OTHER_DTYPES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("residue_dtype", self.residue_dtype, RESIDUE_DTYPES)

    def of_embeddings(self, settings: dict) -> dict:
        """Return the settings of a file of embeddings, from those that determine what is computed."""
        return settings | self._chosen("pooled_dtype")

    def of_residues(self, settings: dict) -> dict:
        """Return the settings of a residue file, from those that determine what is computed."""
        return settings | {"per_residue": self.residue_dtype} | self._chosen("include_dtype", "contact_maps")

    def _chosen(self, *names: str) -> dict:
        """Return {key: value} of options without their default, which files of earlier versions do not name."""
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(type(self), name)}

    @classmethod
    def of_file(cls, settings: Mapping) -> tuple["StorageOptions", dict]:
        """Return the options in the settings of a file, and the settings that determine what was computed."""
        told = {field: settings[key] for key, field in _STORAGE_KEYS.items() if key in settings}
        return cls(**told), {key: value for key, value in settings.items() if key not in _STORAGE_KEYS}


# In the settings of files.
_STORAGE_KEYS = {"per_residue": "residue_dtype"} | {
    name: name for name in ("include_dtype", "contact_maps", "pooled_dtype")
}


@dataclass(frozen=True)
class RepeatOptions(Options):
    """The share of the sequences that an embed job embeds twice; embeddings do not depend on it."""

    repeat: float = option(
        0.02,
        "validation.repeat",
        "Share of the sequences that each embed job embeds twice; a job fails if the two results differ",
        kind=float,
    )
