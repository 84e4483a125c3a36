"""Embed sequences: turn tokens into one vector per sequence, pooling and layer."""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.digest import CheckpointDigest, require_unchanged, start_digest
from ..checkpoints.heads import require_heads
from ..checkpoints.loading import checked_path, load_model
from ..checkpoints.registry import check_published, model_name
from ..errors import NonFiniteError, OptionError
from ..families import CONTACT_HEAD, ModelShape
from ..kernels.device import on_device
from ..kernels.pooling import pool_packed
from ..model.esm2 import ESM2WithFlashAttention, ModelFacts, PackInput, check_weights, resolve_layers
from ..outputs.columns import Column, columns_of
from ..outputs.table import RESIDUES, SCALARS, ResidueOutput, included
from ..sequences.tokens import tokenize
from ..store.settings import BITS
from ..system.versions import backend_version
from .device import DTYPES, choose_device, choose_dtype
from .host_copies import Forms, HostCopies, stored_arrays
from .long_proteins import WindowJoin, cut
from .memory import MemoryPlan
from .options import EmbedOptions
from .packing import Pack, in_sweeps, iterate_packs
from .results import EachSequence, Embeddings, MakePacks, StartedPack

log = logging.getLogger(__name__)

# Packs in the queue while the host waits for an older one: the host prepares packs while the GPU computes.
PACKS_AHEAD = 2


class Embedder:
    """A model with its settings; everything that determines an embedding is in `settings`.

    With `options.windows`, a protein that is longer than a window is embedded in windows, and their outputs are joined.

    Args:
        options: how to embed.
        digest: from `start_digest`, of the checkpoint; by default its sha256 is computed while it is loaded.
        load: load the model now; else it is loaded where it is first used, and only its header is read now.
        beside_reference: host and device will also hold fair-esm's model in fp32, or its layers.

    Raises:
        TypeError: `options` are no EmbedOptions, or their `model` is no path.
    """

    def __init__(
        self,
        options: EmbedOptions,
        digest: Future[CheckpointDigest] | None = None,
        load: bool = True,
        beside_reference: bool = False,
    ) -> None:
        if not isinstance(options, EmbedOptions):
            checked_path(options)
            raise TypeError(f"options: a {type(options).__name__}; give EmbedOptions(model=the path of a checkpoint)")
        checked_path(options.model)
        self.options = options
        self.device = choose_device(options.device)
        self.dtype = choose_dtype(options.dtype, self.device)
        self._check_windows()
        digest = digest or start_digest(Path(options.model))
        base = self._read(mapped=not load)
        require_heads(base, options.include, Path(options.model))
        self._contact_head = _contact_head_sha256(base) if self._needs(CONTACT_HEAD) else None
        facts = self.facts = ModelFacts.of(base, self.device, DTYPES[self.dtype], options.attention)
        self.layers = resolve_layers(options.layers, facts.num_layers)
        self.plan = MemoryPlan(self.device, facts.num_layers, facts.embed_dim, self.dtype)
        self.tokens_per_pack = options.tokens_per_pack or self.plan.tokens_per_pack()
        self._beside_reference = beside_reference
        self._place_weights(self.plan.placement(options.weights, beside_reference))
        self._copies = HostCopies(self.device)
        self._exact: ESM2WithFlashAttention | None = None
        if load:
            self.model = self._on_device(base)
        self.checkpoint = digest.result()  # only here: the weights are copied to the GPU meanwhile
        require_unchanged(Path(options.model), self.checkpoint)
        shape = ModelShape(facts.num_layers, facts.embed_dim, facts.attention_heads, self.checkpoint.sha256)
        check_published(Path(options.model), shape)

    def _place_weights(self, place: str) -> None:
        """Decide where the weights are, a name of `layers.LAYERS`, and how many tokens go through them together."""
        check_weights(place, DTYPES[self.dtype], self.facts)
        self.weights, kept = place, len({*self.layers} - {self.facts.num_layers})
        self.tokens_per_sweep = 0  # each pack alone, because outputs and layers of the reference lie beside it
        if not self._beside_reference:
            self.tokens_per_sweep = self.plan.tokens_per_sweep(self.tokens_per_pack, kept, place)

    @cached_property
    def model(self) -> ESM2WithFlashAttention:
        """The model on the device."""
        model = self._on_device(self._read())
        require_unchanged(Path(self.options.model), self.checkpoint)
        return model

    def _read(self, mapped: bool = False) -> torch.nn.Module:
        """Return the base model; with `mapped`, or if a GPU gets its weights at once, these stay in the file."""
        # On a CPU the weights would stay in the mapped file, and another program could overwrite it during the run.
        return load_model(self.options.model, mapped=mapped or self.device.type == "cuda")

    def _on_device(self, base: torch.nn.Module) -> ESM2WithFlashAttention:
        """Return the packed model; weights that cannot be page-locked on the host are streamed from the file."""
        make = partial(ESM2WithFlashAttention, base, self.device, DTYPES[self.dtype], self.facts.attention)
        try:
            return make(self.weights)
        except MemoryError as error:
            if self.weights != "host":
                raise
            log.warning("weights: %s; streamed from the file, at the rate of its disk", error)
        self._place_weights("file")
        return make(self.weights)

    def _check_windows(self) -> None:
        """Raise OptionError for windows together with an output that cannot be joined over windows."""
        for output in self._outputs if self.options.windows else ():
            if not output.layout.joins_windows:
                raise OptionError(
                    f"include: {output.name} cannot be combined with windows; set long_proteins.action: truncate or "
                    "reject"
                )

    @property
    def _outputs(self) -> list[ResidueOutput]:
        """The included outputs of each residue."""
        return [RESIDUES[name] for name in self.options.include if name in RESIDUES]

    def _needs(self, head: str) -> bool:
        return any(included(name).head == head for name in self.options.include)

    def warm_up(self) -> None:
        """On a GPU, run a pack of filler, which compiles the kernels or loads them from their cache."""
        if self.device.type == "cuda":
            self._start(self.model, list(iterate_packs([tokenize("M")], self.tokens_per_pack)))[0].wait()

    @property
    def settings(self) -> dict:
        """All that determines an embedding, as plain JSON values."""
        return {
            "model": model_name(Path(self.options.model)),
            "model_sha256": self.checkpoint.sha256,
            "layers": self.layers,
            "pooling": list(self.options.poolings),
            "include": list(self.options.include),
            "windows": asdict(self.options.windows) if self.options.windows else None,
            **({"contact_head_sha256": self._contact_head} if self._contact_head else {}),
            "dtype": self.dtype,
            "attention": backend_version(self.facts.attention),
            "device": self.device.type,
            "kernels": self.facts.kernels,
            "tokens_per_pack": self.tokens_per_pack,
            "bits": BITS,
            "torch": torch.__version__,
        }

    @property
    def columns(self) -> list[Column]:
        """The columns, in order."""
        return columns_of(self.settings)

    def empty_columns(self, rows: int) -> dict[str, np.ndarray]:
        """Return an uninitialised matrix for each column, float32 [rows, width]."""
        return self._empty(self.columns, rows)

    def _empty(self, columns: Sequence[Column], rows: int) -> dict[str, np.ndarray]:
        return {x.name: np.empty((rows, x.width(self.facts.embed_dim)), np.float32) for x in columns}

    @property
    def _columns_of_forward(self) -> list[Column]:
        return [column for column in self.columns if not column.is_masked]

    def residues(self, tokens: Sequence[np.ndarray]) -> int:
        """Return the number of residues that `embed` runs; a residue in two windows counts twice."""
        return sum(len(piece) - 2 for one in tokens for piece in cut(one, self.options.windows))

    def embed(
        self,
        tokens: Sequence[np.ndarray],
        each_sequence: EachSequence | None = None,
        progress: Callable[[int], object] = lambda residues: None,
        packs: MakePacks = iterate_packs,
        stored: Forms | None = None,
    ) -> Embeddings:
        """Embed sequences (uint8 [L + 2] each, with cls and eos).

        Args:
            tokens: the sequences.
            each_sequence: called with (index, outputs of `forward_packed` for the sequence, on the device):
                "representations" {layer: fp32 [L + 2, E]}, and the included outputs, by names of RESIDUES.
                They may be kept; in memory they are part of their pack.
            progress: called with the residues done since the last call, counted as in `residues`.
            packs: puts tokens into packs of a budget.
            stored: {output: form}: give `each_sequence` these outputs only, as arrays that `Form.stored` takes. Each
                pack is copied to the host at once. They may be infinite in float16.

        The result lacks the columns that come from masked copies, see `masked.add_masked`. Its `recomputed` lists the
        sequences whose values are not finite: call `recompute` for them.
        """
        pieces = [cut(one, self.options.windows) for one in tokens]
        if len(tokens) == sum(map(len, pieces)):
            return self._embed_whole(tokens, each_sequence, progress, packs, stored)
        join = self._join(tokens, pieces, _as_stored(each_sequence, stored))
        return join.completed(self._embed_whole([piece for one in pieces for piece in one], join.add, progress, packs))

    def _embed_whole(
        self,
        tokens: Sequence[np.ndarray],
        each_sequence: EachSequence | None,
        progress: Callable[[int], object],
        packs: MakePacks,
        stored: Forms | None = None,
    ) -> Embeddings:
        """Embed sequences without windows, each in one forward."""
        result = Embeddings(self._empty(self._columns_of_forward, len(tokens)), places=np.empty(len(tokens), np.int32))
        started: deque[StartedPack] = deque()
        for sweep in in_sweeps(packs(tokens, self.tokens_per_pack), self.tokens_per_sweep, lambda pack: pack.tokens):
            started += self._start(self.model, sweep, each_sequence is not None, stored)
            # Outputs that stay on the device take more memory than anything else of a pack in the queue.
            ahead = PACKS_AHEAD if each_sequence and stored is None else max(PACKS_AHEAD, len(sweep))
            while len(started) > ahead:
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
        stored: Forms | None = None,
    ) -> None:
        """Replace embeddings that are not finite (`result.recomputed`): embed each sequence alone in fp32.

        Raises:
            MemoryError: the GPU memory is too small for the sequence in fp32.
            NonFiniteError: `on_nonfinite` is `fail`, or the values are not finite even in fp32.
        """
        for index in result.recomputed:
            self._recompute(index, tokens, names[index], result, each_sequence, stored)

    def input_of(self, pack: Pack, logits_at: torch.Tensor | None = None) -> PackInput:
        """Return a pack as `forward` takes it; `logits_at`: see `forward_packed`."""
        input_ids = on_device(torch.from_numpy(pack.input_ids), self.device).int()
        return PackInput(input_ids, torch.from_numpy(pack.cu_seqlens), pack.max_seqlen, logits_at)

    def forward(
        self, model: ESM2WithFlashAttention, packs: Sequence[PackInput], layers: Sequence[int], **keywords: bool
    ) -> list[dict]:
        """Return `forward_packs` of a model of this embedder.

        Raises:
            CheckpointError: the weights were read from the file meanwhile, and it was changed.
        """
        outs = model.forward_packs(packs, layers, **keywords)
        if model.weights == "file":
            require_unchanged(Path(self.options.model), self.checkpoint)
        return outs

    def _start(
        self,
        model: ESM2WithFlashAttention,
        packs: Sequence[Pack],
        keep: bool = False,
        stored: Forms | None = None,
    ) -> list[StartedPack]:
        """Queue the work on packs, up to the copies of their results; on a GPU, return before it is done."""
        keywords = {keyword: True for name in self.options.include if (keyword := included(name).forward_keyword)}
        inputs = [self.input_of(pack) for pack in packs]
        outs = self.forward(model, inputs, self.layers, **keywords)
        kernels = model.kernels != "torch"
        return [
            self._pooled_and_copied(pack, outs.pop(0), one.input_ids, kernels, keep, stored)
            for pack, one in zip(packs, inputs, strict=True)
        ]

    def _pooled_and_copied(
        self,
        pack: Pack,
        out: dict,
        input_ids: torch.Tensor,
        kernels: bool,
        keep: bool,
        stored: Forms | None,
    ) -> StartedPack:
        """Queue what follows the forward of a pack; `out`: outputs of `forward_packed`."""
        real = torch.from_numpy(pack.real_cu_seqlens)
        out |= {x.name: x.of_logits(out["logits"], input_ids) for x in self._outputs if x.of_logits}
        vectors, nonfinite = self.pooled(out, input_ids, real, len(pack.indices), kernels)
        with self._copies.after_queued_work():
            pooled = [self._copies.copy([x], x.dtype)[0] for x in (*vectors, nonfinite)]
            residues = self._copies.residues(out, stored) if keep and stored is not None else None
        outputs = out if keep and stored is None else None
        return StartedPack(pack, pooled[:-1], pooled[-1], outputs, residues, self._copies.event())

    def pooled(
        self, out: dict, input_ids: torch.Tensor, cu_seqlens: torch.Tensor, count: int, kernels: bool = False
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return (fp32 [count, width] of each column, bool [count]: not finite) from the outputs of `forward_packed`.

        Args:
            out: these outputs, with logits if a column needs them.
            input_ids: argument of `forward_packed`.
            cu_seqlens, count, kernels: see `pool_packed`.
        """
        parts = [(out["representations"][layer], self.options.poolings) for layer in self.layers]
        scalars = [SCALARS[column.scalar] for column in self._columns_of_forward if column.scalar]
        parts += [(scalar.per_token(out, input_ids), ["mean"]) for scalar in scalars]
        by_part = [pool_packed(rows, cu_seqlens, count, poolings, kernels) for rows, poolings in parts]
        return [x for pools, _ in by_part for x in pools], torch.stack([x for _, x in by_part]).any(0)

    def _finish(self, started: StartedPack, result: Embeddings, each_sequence: EachSequence | None) -> int:
        """Wait for a pack, write its rows into `result`, and return its number of residues."""
        started.wait()
        pack, nonfinite = started.pack, started.bad.numpy()
        for name, vectors in zip(result.columns, started.pooled, strict=True):
            result.columns[name][pack.indices] = vectors.numpy()
        if each_sequence is not None:
            for place in np.flatnonzero(~nonfinite):
                each_sequence(pack.indices[place], started.of_sequence(place))
        result.places[pack.indices] = pack.real_cu_seqlens[:-1]
        result.recomputed += [pack.indices[place] for place in np.flatnonzero(nonfinite)]
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
        stored: Forms | None,
    ) -> None:
        """Embed one sequence in fp32 and replace its values that were not finite; of a long protein, all windows."""
        pieces = cut(tokens[index], self.options.windows)
        each = (lambda _, out: as_stored(index, out)) if (as_stored := _as_stored(each_sequence, stored)) else None
        if len(pieces) == 1:
            alone = self._recompute_alone(tokens[index], name, each)
        else:
            join = self._join([tokens[index]], [pieces], each)
            for number, piece in enumerate(pieces):
                window = f"{name}, window {number + 1} of {len(pieces)}"
                self._recompute_alone(piece, window, lambda _, out, number=number: join.add(number, out))
            alone = join.result
        for column, matrix in alone.columns.items():
            result.columns[column][index] = matrix[0]

    def _recompute_alone(self, tokens: np.ndarray, name: str, each_sequence: EachSequence | None) -> Embeddings:
        """Embed one sequence, or window, in fp32, alone in a pack."""
        problem = f"{name}: values that are not finite in {self.dtype}"
        packs = list(iterate_packs([tokens], len(tokens)))
        alone = Embeddings(self._empty(self._columns_of_forward, 1), places=np.empty(1, np.int32))
        with self.in_fp32(problem, len(tokens) - 2) as model:
            self._finish(self._start(model, packs, keep=each_sequence is not None)[0], alone, each_sequence)
        if alone.recomputed:
            raise NonFiniteError(f"{name}: values that are not finite even in fp32; check the checkpoint")
        return alone

    @contextmanager
    def in_fp32(self, problem: str, residues: int) -> Iterator[ESM2WithFlashAttention]:
        """Give the model in fp32 to a block that recomputes one sequence.

        Args:
            problem: which sequence, and what is wrong with it, for messages.
            residues: of the sequence.

        Raises:
            NonFiniteError: `on_nonfinite` is `fail`, or the embedder computes in fp32 already.
            MemoryError: the GPU memory is too small.
        """
        if self.options.on_nonfinite == "fail" or self.dtype == "fp32":
            raise NonFiniteError(f"{problem}; use dtype: fp32, or check the checkpoint")
        log.warning("%s; recomputed in fp32", problem)
        try:
            if self._exact is None:
                # Streamed weights stay in the file: in fp32 they take twice the memory, for few sequences.
                weights = "resident" if self.weights == "resident" else "file"
                base = load_model(self.options.model, mapped=weights == "file" and self.device.type == "cuda")
                require_unchanged(Path(self.options.model), self.checkpoint)
                self._exact = ESM2WithFlashAttention(base, self.device, torch.float32, "sdpa", weights)
            yield self._exact
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{problem}, and the GPU memory is too small to recompute its {residues} residues in fp32; "
                "use dtype: bf16 (the range of fp32), a larger GPU, or device: cpu"
            ) from error

    def _join(
        self,
        tokens: Sequence[np.ndarray],
        pieces: Sequence[Sequence[np.ndarray]],
        each_sequence: EachSequence | None,
    ) -> WindowJoin:
        """Return an object that joins `pieces`, the windows of each of `tokens`."""
        result = Embeddings(self._empty(self._columns_of_forward, len(tokens)))
        return WindowJoin(self.options.windows, self._pool_joined, tokens, pieces, result, each_sequence)

    def _pool_joined(self, tokens: np.ndarray, out: dict) -> list[np.ndarray]:
        """Return the row of each column of one protein, from the joined outputs of its windows."""
        cu_seqlens = torch.tensor([0, len(tokens)], dtype=torch.int32)
        pooled, nonfinite = self.pooled(out, torch.from_numpy(tokens).to(self.device), cu_seqlens, 1)
        if nonfinite.any():
            raise NonFiniteError("joined windows are not finite; use dtype: fp32, or check the checkpoint")
        return [vectors[0].cpu().numpy() for vectors in pooled]


def _as_stored(each_sequence: EachSequence | None, stored: Forms | None) -> EachSequence | None:
    """Return `each_sequence` as a function that takes outputs of `forward_packed`."""
    if each_sequence is None or stored is None:
        return each_sequence
    return lambda index, out: each_sequence(index, stored_arrays(out, stored))


def _contact_head_sha256(base_model: torch.nn.Module) -> str:
    """Return the sha256 of the weights of a contact head."""
    regression = base_model.contact_head.regression
    return hashlib.sha256(b"".join(x.detach().float().numpy().tobytes() for x in regression.parameters())).hexdigest()
