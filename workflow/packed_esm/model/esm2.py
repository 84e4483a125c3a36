"""ESM-2 over packed sequences, equal to fair-esm's `esm.model.esm2.ESM2.forward` (Lin et al. 2023).

ESM-1b and ESM-1v (Rives et al. 2021, Meier et al. 2021; `esm.model.esm1.ProteinBertModel`) run the same blocks. They
add a learned embedding of the position in the sequence; ESM-2 rotates q and k instead.

    model = ESM2WithFlashAttention(base_model, device)
    out = model.forward_packed(input_ids, cu_seqlens, max_seqlen, repr_layers=[33])
    out["representations"][33]      # float32 [total, embed_dim]

In half precision only the matrix products and the attention use half precision: embedding, residual stream,
layer norms and rotary tables stay fp32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import OptionError
from ..families import family_of
from ..kernels.device import module_on_device
from ..kernels.dispatch import operations_for
from ..kernels.int8 import INT8, activation_dtype
from ..outputs.columns import resolve_layers
from ..system.versions import backend_version
from .attention import Attend, PackLayout, attention_over, create_position_ids_packed, per_token
from .backends import check_dtype, choose_backend
from .contacts import ContactSums, contact_sums, observed
from .layers import LAYERS
from .padded import in_padded_batches
from .parts import packed_parts

LOGITS_ROWS = 128  # of the LM head at once where only some rows are wanted: one shape, so that all bits are equal
MAX_PADDED_FP32 = 16384  # tokens: 1 GiB of fp32 scores per head


@dataclass(frozen=True)
class ModelFacts:
    """What a base model tells before its weights are on a device.

    Attributes:
        num_layers, embed_dim, attention_heads: its shape.
        max_residues: the largest number of residues that its positions allow; None: any length.
        attention: the attention backend.
        kernels: the operations between the matrix products: `gluon` or `triton` with its version, or `torch`.
        has_forward: see `parts.PackedParts`.
    """

    num_layers: int
    embed_dim: int
    attention_heads: int
    max_residues: int | None
    attention: str
    kernels: str
    has_forward: bool

    @classmethod
    def of(cls, base_model: nn.Module, device: torch.device, dtype: torch.dtype, attention: str) -> "ModelFacts":
        """Return the facts of a base model; the arguments and errors are those of `ESM2WithFlashAttention`."""
        family, parts = family_of(base_model), packed_parts(base_model)
        if dtype == INT8:
            family.require_int8()
        activations, positions = check_dtype(dtype, device), parts.position_embedding
        return cls(
            num_layers=parts.num_layers,
            embed_dim=parts.embed_dim,
            attention_heads=parts.attention_heads,
            max_residues=None if positions is None else len(positions) - 2,
            attention=choose_backend(attention, device, activations, parts.embed_dim // parts.attention_heads),
            kernels=backend_version(operations_for(device, activations, parts.embed_dim).NAME),
            has_forward=parts.has_forward,
        )


def check_weights(weights: str, dtype: torch.dtype, facts: ModelFacts) -> None:
    """Raise OptionError for weights that cannot be streamed; the arguments are those of `ESM2WithFlashAttention`."""
    if weights != "resident" and dtype == torch.float32 and facts.attention == "padded" and facts.has_forward:
        raise OptionError(
            "weights: attention: padded in fp32 runs fair-esm's forward, whose weights are not streamed; use "
            "attention: auto"
        )


class PackInput(NamedTuple):
    """One pack, with the arguments of `forward_packed` that describe it."""

    input_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    logits_at: torch.Tensor | None = None


@dataclass
class _Rows:
    """The rows of a pack on their way through the layers.

    Attributes:
        x, delta, rotation: arguments of the next block.
        attend: attention within the sequences.
        maps: to which each layer adds its contacts; None: no contacts are wanted.
        hidden: {layer: fp32 [rows, E]} of the wanted layers so far.
    """

    x: torch.Tensor | None
    rotation: torch.Tensor | None
    attend: Attend
    maps: ContactSums | None = None
    delta: torch.Tensor | None = None
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)


class ESM2WithFlashAttention(nn.Module):
    """A fair-esm `ESM2`, ESM-1b or ESM-1v, or a model of another family, for packed sequences.

    Args:
        base_model: fair-esm's `ESM2` of any size, its `ProteinBertModel` of ESM-1b or ESM-1v, or another model that
            `checkpoints.loading.load_model` returns. In fp32 one of fair-esm is moved to `device` and shares its
            weights, except q, k and v. Otherwise it stays unchanged, and the matrices are copied.
        device: where to run.
        dtype: of the matrix products; by default float32 on CPU, float16 elsewhere. int8 (Hopper, or a CPU
            with VNNI or AMX) applies to the products of the feed-forward; the rest is bf16.
        attention: `auto`, or one of `backends.BACKENDS`.
        weights: where the blocks are, see `layers`: `resident` on the device, or streamed to it from the memory of the
            `host`, or from the `file` that `base_model` is mapped from. No bit of `forward_packed` depends on it.
            Unless they are resident, `base_model` stays unchanged.

    Raises:
        ValueError: a dtype or attention backend that cannot run here, or rotary frequencies that differ by layer.
        MemoryError: see `HostLayers`.
    """

    def __init__(
        self,
        base_model: nn.Module,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
        attention: str = "auto",
        weights: str = "resident",
    ) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.float16)
        facts = ModelFacts.of(base_model, self.device, self.dtype, attention)
        self.num_layers, self.embed_dim, self.attention_heads = facts.num_layers, facts.embed_dim, facts.attention_heads
        self.attention, self.kernels, self.max_residues = facts.attention, facts.kernels, facts.max_residues
        self.weights = weights
        check_weights(weights, self.dtype, facts)
        runs_itself = facts.has_forward and self.dtype == torch.float32 and weights == "resident"
        self.base_model = base_model.to(self.device, torch.float32) if runs_itself else None
        parts = packed_parts(base_model)
        self.padding_idx, self.mask_idx, self.token_dropout = parts.padding_idx, parts.mask_idx, parts.token_dropout
        self._ops = operations_for(self.device, activation_dtype(self.dtype), self.embed_dim)
        make = partial(parts.block, device=self.device, dtype=self.dtype)
        self.layers = LAYERS[weights](make, self.num_layers, self.device)
        for name in ("embedding", "position_embedding", "inv_freq"):
            tensor = getattr(parts, name)
            self.register_buffer(name, None if tensor is None else tensor.to(self.device), persistent=False)
        for name in ("norm_before", "final_norm", "lm_head", "contact_head"):
            module = getattr(parts, name)
            setattr(self, name, module and module_on_device(module, self.device))
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, tokens: torch.Tensor, repr_layers: Iterable[int] = (), return_contacts: bool = False) -> dict:
        """Return what fair-esm's `ESM2.forward` returns, for padded tokens, int [B, T].

        With a model of fair-esm and resident weights in fp32 this is fair-esm's own forward. Otherwise the result has
        `logits` and `representations`, fp32, with rotary tables of fp32 positions.

        Raises:
            ValueError: contacts otherwise, a layer out of range, or more tokens than the model has positions for.
        """
        layers = resolve_layers(repr_layers, self.num_layers)
        self._check_length("tokens", tokens.shape[1])
        if self.base_model is not None:
            return self.base_model(tokens, repr_layers=layers, return_contacts=return_contacts)
        if return_contacts:
            raise ValueError("return_contacts: needs dtype=torch.float32 and resident weights")
        return self._forward_padded(tokens, layers)

    @torch.inference_mode()
    def forward_packed(
        self,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        repr_layers: Iterable[int] | None = None,
        need_logits: bool = False,
        return_contacts: bool = False,
        logits_at: torch.Tensor | None = None,
    ) -> dict:
        """Return {"representations": {layer: float32 [total, E]}} of concatenated sequences.

        Args:
            input_ids: int [total] on the model's device, each sequence with its cls and eos.
            cu_seqlens: int32 [n + 1], from 0, strictly increasing, to `total`. On the host, checking and copying it
                needs no synchronisation; on a device, reading it back synchronises.
            max_seqlen: at least the longest sequence, in tokens.
            repr_layers: as in fair-esm, 0 to N or negative; by default the last.
            need_logits: also return "logits", float32 [total, tokens of the alphabet].
            return_contacts: also return "contacts", a float32 [L, L] for each sequence of L residues.
            logits_at: int [n] on the model's device; "logits" are then those of these rows, float32 [n, tokens].

        Raises:
            ValueError: an argument does not fit this description; the message names it.
        """
        pack = PackInput(input_ids, cu_seqlens, max_seqlen, logits_at)
        return self.forward_packs([pack], repr_layers, need_logits, return_contacts)[0]

    @torch.inference_mode()
    def forward_packs(
        self,
        packs: Sequence[PackInput],
        repr_layers: Iterable[int] | None = None,
        need_logits: bool = False,
        return_contacts: bool = False,
    ) -> list[dict]:
        """Return what `forward_packed` returns for each pack; each layer runs over all of them before the next one.

        Weights that are streamed are copied once for all packs.
        """
        layers = resolve_layers([-1] if repr_layers is None else repr_layers, self.num_layers)
        if self.attention == "padded":
            return [self._padded_outputs(pack, layers, need_logits, return_contacts) for pack in packs]
        every = [self._rows(pack, return_contacts) for pack in packs]
        to_the_end = need_logits or return_contacts or any(pack.logits_at is not None for pack in packs)
        self._run_layers(every, [*layers, self.num_layers] if to_the_end else layers)
        return [
            self._outputs(rows, layers, need_logits, pack.logits_at) for rows, pack in zip(every, packs, strict=True)
        ]

    def _rows(self, pack: PackInput, return_contacts: bool) -> _Rows:
        """Return the rows of a pack before the first layer."""
        layout = self._layout(pack.input_ids, pack.cu_seqlens, pack.max_seqlen)
        maps = None
        if return_contacts:
            use_kernels = self.kernels != "torch"
            maps = contact_sums(self.contact_head.regression, self.num_layers, layout.host, use_kernels)
        positions = create_position_ids_packed(layout.device, layout.total)
        x = self._embed(pack.input_ids, self._mask_ratio(pack.input_ids, layout), positions)
        return _Rows(x, self._rotation(positions), attention_over(self.attention, layout), maps)

    def _outputs(self, rows: _Rows, layers: list[int], need_logits: bool, logits_at: torch.Tensor | None) -> dict:
        """Return the outputs of a pack after its last layer; see `forward_packed`."""
        result = {"representations": {layer: rows.hidden[layer] for layer in layers}}
        if logits_at is not None:
            result["logits"] = self._some_logits(rows.hidden[self.num_layers], logits_at)
        elif need_logits:
            result["logits"] = self.lm_head(rows.hidden[self.num_layers])
        if rows.maps:
            result["contacts"] = rows.maps.contacts()
        return result

    def _padded_outputs(self, pack: PackInput, layers: list[int], need_logits: bool, return_contacts: bool) -> dict:
        """Return the outputs of a pack by `_forward_packed_fallback`."""
        *arguments, logits_at = pack
        result = self._forward_packed_fallback(
            *arguments, layers, need_logits or logits_at is not None, return_contacts
        )
        return result if logits_at is None else result | {"logits": result["logits"][logits_at]}

    @torch.inference_mode()
    def _forward_packed_fallback(
        self,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        repr_layers: Iterable[int] | None = None,
        need_logits: bool = False,
        return_contacts: bool = False,
    ) -> dict:
        """Do the same as `forward_packed`: unpack to padded batches of similar length, run, and pack again."""
        layers = resolve_layers([-1] if repr_layers is None else repr_layers, self.num_layers)
        layout = self._layout(input_ids, cu_seqlens, max_seqlen)
        longest = int(layout.host.diff().max())
        if return_contacts:
            raise OptionError(
                "contacts: attention: padded would have to keep the maps of all layers; use attention: auto"
            )
        if self.base_model is not None and longest > MAX_PADDED_FP32:
            raise OptionError(
                f"attention: padded in fp32 runs fair-esm's forward, whose attention map of {longest} tokens is too "
                f"large (limit {MAX_PADDED_FP32}); use attention: auto"
            )
        result = in_padded_batches(partial(self.forward, repr_layers=layers), input_ids, layout, self.padding_idx)
        representations = {layer: result["representations"][layer] for layer in layers}  # fair-esm sorts them
        return {"representations": representations} | ({"logits": result["logits"]} if need_logits else {})

    def _some_logits(self, hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of some rows of [total, E]; none depends on how many there are."""
        blocks = F.pad(rows, (0, -len(rows) % LOGITS_ROWS)).split(LOGITS_ROWS)
        return torch.cat([self.lm_head(hidden[block]) for block in blocks])[: len(rows)]

    def _forward_padded(self, tokens: torch.Tensor, layers: list[int]) -> dict:
        """Run padded tokens [B, T] through the packed layers: B * T rows, with padding masked as keys."""
        batch, width = tokens.shape
        padding_mask = tokens.eq(self.padding_idx)
        key_mask = ~padding_mask[:, None, None, :]

        def attend(*qkv: torch.Tensor) -> torch.Tensor:
            q, k, v = (x.view(batch, width, *x.shape[1:]).transpose(1, 2) for x in qkv)  # [B, H, T, D]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask).transpose(1, 2).flatten(0, 1)

        masked = tokens.eq(self.mask_idx).sum(-1)
        positions = torch.arange(width, device=self.device).expand(batch, width)
        x = self._embed(tokens, (masked / (~padding_mask).sum(-1))[:, None], positions)
        x = x.masked_fill(padding_mask[..., None], 0.0).flatten(0, 1)
        rows = _Rows(x, self._rotation(positions.flatten()), attend)
        self._run_layers([rows], list(dict.fromkeys([*layers, self.num_layers])))
        padded = {layer: hidden.view(batch, width, -1) for layer, hidden in rows.hidden.items()}
        logits = self.lm_head(padded[self.num_layers])
        return {"logits": logits, "representations": {layer: padded[layer] for layer in layers}}

    def _run_layers(self, packs: Sequence[_Rows], layers: list[int]) -> None:
        """Run the blocks up to the last of `layers`, which come into `hidden`."""
        for rows in packs if 0 in layers else ():
            rows.hidden[0] = rows.x
        for index, block in enumerate(self.layers.first(max(layers, default=0)), start=1):
            for rows in packs:
                self._run_layer(rows, block, index, index in layers)

    def _run_layer(self, rows: _Rows, block: nn.Module, index: int, is_wanted: bool) -> None:
        """Run the block of a layer, counted from 1; the last layer of the model is kept after the final norm."""
        attend = observed(rows.attend, rows.maps, index - 1) if rows.maps else rows.attend
        x, delta = block(rows.x, rows.delta, rows.rotation, attend)
        if index == self.num_layers:
            rows.hidden[index] = self._ops.add_norm(x, delta, self.final_norm, torch.float32)[1]
            x = delta = None
        elif is_wanted:
            x, delta = x + delta, None
            rows.hidden[index] = x
        rows.x, rows.delta = x, delta

    def _embed(self, tokens: torch.Tensor, mask_ratio: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the scaled embedding, fp32 [..., E]; in ESM-1b with the embedding of the position added.

        Args:
            tokens, positions: int [...].
            mask_ratio: [...], share of mask tokens in the sequence of each token.
        """
        x = F.embedding(tokens, self.embedding)
        if self.token_dropout:
            x.div_((1 - mask_ratio)[..., None])
        if self.position_embedding is not None:
            x += F.embedding(positions, self.position_embedding)
        return x if self.norm_before is None else self.norm_before(x)

    def _mask_ratio(self, input_ids: torch.Tensor, layout: PackLayout) -> torch.Tensor:
        """Return, for each token, the share of mask tokens among all tokens of its sequence, fp32 [total]."""
        masked = F.pad(input_ids.eq(self.mask_idx).cumsum(0), (1, 0))  # integers: exact
        ratio = masked[layout.device].diff() / layout.device.diff()
        return per_token(ratio, layout.device, layout.total)

    def _rotation(self, positions: torch.Tensor) -> torch.Tensor | None:
        """Return exp(i angle), complex64 [rows, D / 2], as esm/rotary_embedding.py computes cos and sin."""
        if self.inv_freq is None:
            return None
        angles = positions[:, None].to(torch.float32) * self.inv_freq
        return torch.complex(angles.cos(), angles.sin())

    def _layout(self, input_ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int) -> PackLayout:
        """Check a pack and return its layout; see `PackLayout.of`."""
        layout = PackLayout.of(input_ids, cu_seqlens, max_seqlen, self.embedding.device)
        self._check_length("cu_seqlens", int(layout.host.diff().max()))
        return layout

    def _check_length(self, argument: str, tokens: int) -> None:
        """Raise ValueError for a sequence that is longer than the learned positions, of which there are no rows."""
        if self.max_residues is not None and tokens > self.max_residues + 2:
            raise ValueError(
                f"{argument}: a sequence of {tokens - 2} residues is longer than {self.max_residues}, "
                "the limit of the model's learned positions"
            )
