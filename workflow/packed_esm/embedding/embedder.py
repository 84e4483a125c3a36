"""Embed sequences: tokens in, one vector a sequence, pooling and layer out."""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..checkpoints.headers import checkpoint_sha256
from ..checkpoints.heads import require_heads
from ..checkpoints.loading import load_esm2
from ..checkpoints.registry import ModelShape, check_published, model_name
from ..errors import NonFiniteError, OptionError
from ..features import INCLUDE, LOG_LIKELIHOOD, POOLINGS, column_names
from ..kernels.device import on_device
from ..kernels.pooling import pool_packed
from ..model.backends import backend_version
from ..model.esm2 import ESM2WithFlashAttention, resolve_layers
from ..sequences.tokens import tokenize
from .device import choose_device, choose_dtype, default_tokens_per_pack
from .options import DTYPES, EmbedOptions
from .packing import Pack, iterate_packs

log = logging.getLogger(__name__)


# Packs whose work is queued while one is waited for: the host prepares the next while the GPU computes.
PACKS_AHEAD = 2


EachSequence = Callable[[int, dict], None]


@dataclass
class Embeddings:
    """Result of one call, in the order of the input.

    Attributes:
        columns: {"mean_33": float32 [n, E], ..., "log_likelihood": float32 [n, 1]}.
        recomputed: indices of sequences with values that were not finite.
        packs, real_tokens, pack_tokens: how the work was packed; fill = real_tokens / pack_tokens.
    """

    columns: dict[str, np.ndarray]
    recomputed: list[int] = field(default_factory=list)
    packs: int = 0
    real_tokens: int = 0
    pack_tokens: int = 0


@dataclass(frozen=True)
class StartedPack:
    """A pack whose work is queued.

    Attributes:
        pooled: fp32 [n, width] of each column, on the host, to be read after `wait`.
        bad: bool [n] on the host, likewise: which sequences have values that are not finite.
        outputs: what `forward_packed` returned, on the device, where it was asked for.
        done: recorded after the last copy; None where there was nothing to wait for.
    """

    pack: Pack
    pooled: list[torch.Tensor]
    bad: torch.Tensor
    outputs: dict | None
    done: torch.cuda.Event | None

    def wait(self) -> None:
        """Return when the work is done."""
        if self.done:
            self.done.synchronize()

    def of_sequence(self, place: int) -> dict:
        """Return the outputs of the sequence that stands at `place` in the pack."""
        rows = slice(self.pack.cu_seqlens[place], self.pack.cu_seqlens[place + 1])
        one: dict = {"representations": {k: x[rows] for k, x in self.outputs["representations"].items()}}
        if "logits" in self.outputs:
            one["logits"] = self.outputs["logits"][rows]
        if "contacts" in self.outputs:
            one["contacts"] = self.outputs["contacts"][place]
        return one


class Embedder:
    """A loaded model with its settings; everything that determines an embedding is in `settings`."""

    def __init__(self, options: EmbedOptions) -> None:
        self.options = options
        self.device = choose_device(options.device)
        dtype = choose_dtype(options.dtype, self.device)
        for key, asked, known in (("pooling", options.poolings, POOLINGS), ("include", options.include, INCLUDE)):
            for name in asked:
                if name not in known:
                    raise OptionError(f"{key}: {name!r} is not one of {', '.join(known)}")
        if options.windows and "contacts" in options.include:
            raise OptionError("include: contacts are not to be had of windows; use too_long: truncate or reject")
        with ThreadPoolExecutor(1) as beside:  # hashing lets go of the interpreter
            digest = beside.submit(checkpoint_sha256, options.model)
            # Not where the weights stay in the mapped file: it may be overwritten while they are used.
            base = load_esm2(options.model, mapped=self.device.type == "cuda")
        self._model_sha256 = digest.result()
        require_heads(base, options.include, Path(options.model))
        self._contact_head = _contact_head_sha256(base) if "contacts" in options.include else None
        model = self.model = ESM2WithFlashAttention(base, self.device, DTYPES[dtype], options.attention)
        self.layers = resolve_layers(options.layers, model.num_layers)
        self.tokens_per_pack = options.tokens_per_pack or default_tokens_per_pack(
            self.device, model.num_layers, model.embed_dim
        )
        self._dtype = dtype
        self._exact: ESM2WithFlashAttention | None = None
        shape = ModelShape(model.num_layers, model.embed_dim, model.attention_heads, self._model_sha256)
        check_published(Path(options.model), shape)

    def warm_up(self) -> None:
        """On a GPU, run a pack of filler: kernels are compiled, or taken from their cache, before the work begins."""
        if self.device.type == "cuda":
            (pack,) = iterate_packs([tokenize("M")], self.tokens_per_pack)
            self._start(self.model, pack).wait()

    @property
    def settings(self) -> dict:
        """All that determines an embedding, as plain JSON values."""
        return {
            "model": model_name(Path(self.options.model)),
            "model_sha256": self._model_sha256,
            "layers": self.layers,
            "pooling": list(self.options.poolings),
            "include": list(self.options.include),
            "windows": asdict(self.options.windows) if self.options.windows else None,
            **({"contact_head_sha256": self._contact_head} if self._contact_head else {}),
            "dtype": self._dtype,
            "attention": backend_version(self.model.attention),
            "device": self.device.type,
            "kernels": self.model.kernels,
            "tokens_per_pack": self.tokens_per_pack,
            "packed_esm": __version__,
            "torch": torch.__version__,
        }

    @property
    def columns(self) -> dict[str, int]:
        """Names and widths of the columns, `mean_33` and so on, in order."""
        names = column_names(self.settings)
        return {name: 1 if name == LOG_LIKELIHOOD else self.model.embed_dim for name in names}

    def empty_columns(self, rows: int) -> dict[str, np.ndarray]:
        """Return a matrix for each column, float32 [rows, width], not set."""
        return {name: np.empty((rows, width), np.float32) for name, width in self.columns.items()}

    def residues(self, tokens: Sequence[np.ndarray]) -> int:
        """Return the residues that `embed` runs."""
        return sum(len(one) - 2 for one in tokens)

    def embed(
        self,
        tokens: Sequence[np.ndarray],
        each_sequence: EachSequence | None = None,
        progress: Callable[[int], object] = lambda residues: None,
    ) -> Embeddings:
        """Embed sequences (uint8 [L + 2] each, with cls and eos).

        Args:
            tokens: the sequences.
            each_sequence: called with (index, what `forward_packed` gave for the sequence, on the device): its
                "representations" {layer: fp32 [L + 2, E]}, and "logits" and "contacts" where they are included.
            progress: called with the residues done since the last call.

        Sequences whose values are not finite are listed in the result's `recomputed`: call `recompute` for them.
        """
        result = Embeddings(self.empty_columns(len(tokens)))
        started: deque[StartedPack] = deque()
        for pack in iterate_packs(tokens, self.tokens_per_pack):
            started.append(self._start(self.model, pack, keep=each_sequence is not None))
            if len(started) > PACKS_AHEAD:
                progress(self._finish(started.popleft(), result, each_sequence))
        while started:
            progress(self._finish(started.popleft(), result, each_sequence))
        result.recomputed.sort()
        return result

    def recompute(
        self,
        result: Embeddings,
        tokens: Sequence[np.ndarray],
        names: Sequence[str],
        each_sequence: EachSequence | None = None,
    ) -> None:
        """Replace what `embed` found not finite (`result.recomputed`) by its embedding in fp32, alone.

        Raises:
            MemoryError: the GPU has no room for it in fp32.
            NonFiniteError: where `on_nonfinite` is `fail`, or the values are not finite even in fp32.
        """
        for index in result.recomputed:
            self._recompute(index, tokens, names[index], result, each_sequence)

    def _start(self, model: ESM2WithFlashAttention, pack: Pack, keep: bool = False) -> StartedPack:
        """Queue all the work on a pack, to the copy of its pooled vectors; on a GPU this returns before it is done."""
        input_ids = on_device(torch.from_numpy(pack.input_ids), self.device).int()
        cu_seqlens = torch.from_numpy(pack.cu_seqlens)
        include = self.options.include
        out = model.forward_packed(
            input_ids,
            cu_seqlens,
            pack.max_seqlen,
            self.layers,
            need_logits="logits" in include or LOG_LIKELIHOOD in include,
            return_contacts="contacts" in include,
        )
        vectors, bad = self.pooled(out, input_ids, cu_seqlens, len(pack.indices), model.kernels != "torch")
        pooled, bad = [x.to("cpu", non_blocking=True) for x in vectors], bad.to("cpu", non_blocking=True)
        done = torch.cuda.Event() if self.device.type == "cuda" else None
        if done:
            done.record()
        return StartedPack(pack, pooled, bad, out if keep else None, done)

    def pooled(
        self, out: dict, input_ids: torch.Tensor, cu_seqlens: torch.Tensor, count: int, kernels: bool = False
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return (fp32 [count, width] of each column, bool [count]: not finite) of what `forward_packed` gave.

        Args:
            out: its result, with logits where a column needs them.
            input_ids, cu_seqlens: its arguments, the latter on the host.
            count: how many sequences of the pack are wanted.
            kernels: see `pool_packed`.
        """
        parts = [(out["representations"][layer], self.options.poolings) for layer in self.layers]
        if LOG_LIKELIHOOD in self.options.include:
            parts.append((_log_likelihoods(out["logits"], input_ids), ["mean"]))
        by_part = [pool_packed(rows, cu_seqlens, count, poolings, kernels) for rows, poolings in parts]
        return [x for pools, _ in by_part for x in pools], torch.stack([bad for _, bad in by_part]).any(0)

    def _finish(self, started: StartedPack, result: Embeddings, each_sequence: EachSequence | None) -> int:
        """Wait for a pack, write its rows of `result`, and return its residues."""
        started.wait()
        pack, bad = started.pack, started.bad.numpy()
        for name, vectors in zip(result.columns, started.pooled, strict=True):
            result.columns[name][pack.indices] = vectors.numpy()
        if each_sequence is not None:
            for place in np.flatnonzero(~bad):
                each_sequence(pack.indices[place], started.of_sequence(place))
        result.recomputed += [pack.indices[place] for place in np.flatnonzero(bad)]
        result.packs += 1
        result.real_tokens += pack.real_tokens
        result.pack_tokens += len(pack.input_ids)
        return pack.real_tokens - 2 * len(pack.indices)

    def _recompute(
        self,
        index: int,
        tokens: Sequence[np.ndarray],
        name: str,
        result: Embeddings,
        each_sequence: EachSequence | None,
    ) -> None:
        """Embed one sequence in fp32, alone, in place of values that were not finite."""
        problem = f"{name}: values that are not finite in {self.settings['dtype']}"
        if self.options.on_nonfinite == "fail" or self.settings["dtype"] == "fp32":
            raise NonFiniteError(f"{problem}; use dtype: fp32, or check the checkpoint")
        log.warning("%s; recomputed in fp32", problem)
        (pack,) = iterate_packs([tokens[index]], len(tokens[index]))
        alone = Embeddings(self.empty_columns(1))
        forward_one = (lambda _, rows: each_sequence(index, rows)) if each_sequence else None
        try:
            if self._exact is None:
                base = load_esm2(self.options.model)
                self._exact = ESM2WithFlashAttention(base, self.device, torch.float32, "sdpa")
            self._finish(self._start(self._exact, pack, keep=each_sequence is not None), alone, forward_one)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{problem}, and there is no GPU memory to recompute its {len(tokens[index]) - 2} residues in fp32; "
                "use dtype: bf16 (the range of fp32), a larger GPU, or device: cpu"
            ) from error
        if alone.recomputed:
            raise NonFiniteError(f"{name}: values that are not finite even in fp32; check the checkpoint")
        for column, matrix in alone.columns.items():
            result.columns[column][index] = matrix[0]


def _log_likelihoods(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probability that the model gives to each token where it stands, not masked, fp32 [total, 1]."""
    return torch.log_softmax(logits, -1).gather(1, input_ids[:, None].long())


def _contact_head_sha256(base_model: torch.nn.Module) -> str:
    """Return the sha256 of the weights of a contact head."""
    regression = base_model.contact_head.regression
    return hashlib.sha256(b"".join(x.detach().numpy().tobytes() for x in regression.parameters())).hexdigest()
