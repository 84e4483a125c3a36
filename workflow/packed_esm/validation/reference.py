"""The reference for packed results: fair-esm in fp32, one unpadded sequence at a time.

It shares no code with the packed model. If fair-esm's full attention map is too large for the memory, attention is
computed in blocks of queries; the softmax of each block still uses all keys.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

CONTACT_BYTES = 2**30  # attention scores of all layers and heads, fp32, which fair-esm keeps for its contacts
MAP_BYTES = 512 * 2**20  # attention scores of one layer, all heads, fp32: larger ones are computed in blocks
BLOCK_BYTES = 64 * 2**20  # of such a block: 24 to 256 MiB are equally fast, smaller blocks are slower


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Turn TF32 off for the block: with it, fp32 products on a GPU keep 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.inference_mode()
def reference_outputs(
    model: torch.nn.Module,
    tokens: np.ndarray,
    layers: Sequence[int],
    contacts: bool = False,
    map_bytes: int = MAP_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> dict:
    """Return the outputs of fair-esm itself for one sequence.

    Args:
        model: fair-esm `ESM2` or `ProteinBertModel`, fp32, in eval mode; or the reference of another family.
        tokens: integer [T], with cls and eos.
        layers: 0 to N, as fair-esm counts them.
        contacts: also return contacts, unless the maps of the sequence need more than CONTACT_BYTES.
        map_bytes: if the attention scores of a layer are larger than this, they are computed in blocks of queries.
        block_bytes: size of such a block.

    Returns:
        {"representations": {layer: fp32 [T, E]}, "logits": fp32 [T, tokens], "contacts": fp32 [L, L]}; the last
        only if they were computed.
    """
    if hasattr(model, "outputs"):  # the reference of another family
        with full_precision():
            return model.outputs(tokens, layers)
    device = model.embed_tokens.weight.device
    batch = torch.as_tensor(tokens.astype(np.int64), device=device)[None]
    heads = model.layers[0].self_attn.num_heads
    row_bytes = 4 * heads * len(tokens)
    contacts = contacts and row_bytes * len(tokens) * len(model.layers) <= CONTACT_BYTES
    rows = max(1, block_bytes // row_bytes)
    with full_precision():
        if row_bytes * len(tokens) <= map_bytes:
            out = model(batch, repr_layers=list(layers), return_contacts=contacts)
        else:
            with _attention_in_blocks(model, rows):
                out = model(batch, repr_layers=list(layers))
    one = {"representations": {layer: out["representations"][layer][0] for layer in layers}, "logits": out["logits"][0]}
    return one | ({"contacts": out["contacts"][0]} if contacts else {})


@torch.inference_mode()
def masked_logits(
    model: torch.nn.Module, tokens: np.ndarray, positions: Sequence[int], starts: Sequence[int], size: int
) -> np.ndarray:
    """Return the logits of fair-esm at some residues, each with this residue alone masked, fp32 [positions, tokens].

    Args:
        model: see `reference_outputs`.
        tokens: integer [T], with cls and eos.
        positions: residues, from 0.
        starts, size: windows of the protein, of `size` residues each; `scoring_window` says which one is run.
    """
    rows = []
    for position in positions:
        start = starts[scoring_window(position, starts, size)]
        window = tokens[[0, *range(1 + start, 1 + start + size), -1]]
        place = position - start + 1
        window[place] = model.mask_idx
        rows.append(reference_outputs(model, window, [])["logits"][place])
    return torch.stack(rows).numpy(force=True)


def scoring_window(position: int, starts: Sequence[int], size: int) -> int:
    """Return the number of the window whose centre is nearest to a residue; of two, the earlier one."""
    return min(range(len(starts)), key=lambda i: (abs(starts[i] + (size - 1) / 2 - position), i))


def substitution_marginals(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return log p(a) - log p(wild type) for a of ACDEFGHIKLMNPQRSTVWY, fp64 [n, 20]; logits and tokens of n rows."""
    from esm import Alphabet

    alphabet = Alphabet.from_architecture("ESM-1b")
    log_p = torch.log_softmax(torch.from_numpy(logits).double(), -1)
    own = torch.stack([row[int(token)] for row, token in zip(log_p, tokens, strict=True)])
    letters = [log_p[:, alphabet.get_idx(letter)] for letter in "ACDEFGHIKLMNPQRSTVWY"]
    return (torch.stack(letters, -1) - own[:, None]).numpy()


def reference_in_windows(
    model: torch.nn.Module, tokens: np.ndarray, layers: Sequence[int], starts: Sequence[int], size: int
) -> dict:
    """Return representations and logits of a protein from windows of `size` residues that begin at `starts`.

    A residue gets the mean over the windows that contain it. cls comes from the first window, eos from the last.
    "scored_logits", fp32 [L, tokens], are those of one window for each residue, see `scoring_window`.
    """
    windows = [tokens[[0, *range(1 + start, 1 + start + size), -1]] for start in starts]
    parts = [reference_outputs(model, window, layers) for window in windows]

    def mean(rows_of: Callable[[dict], torch.Tensor]) -> torch.Tensor:
        by_residue: list[list[torch.Tensor]] = [[] for _ in range(len(tokens) - 2)]
        for start, part in zip(starts, parts, strict=True):
            for place, row in enumerate(rows_of(part)[1:-1]):
                by_residue[start + place].append(row)
        inner = [torch.stack(rows).mean(0) for rows in by_residue]
        return torch.stack([rows_of(parts[0])[0], *inner, rows_of(parts[-1])[-1]])

    representations = {layer: mean(lambda part, layer=layer: part["representations"][layer]) for layer in layers}
    scoring = [scoring_window(i, starts, size) for i in range(len(tokens) - 2)]
    scored = torch.stack([parts[number]["logits"][1 + i - starts[number]] for i, number in enumerate(scoring)])
    return {
        "representations": representations,
        "logits": mean(lambda part: part["logits"]),
        "scored_logits": scored,
    }


@contextlib.contextmanager
def _attention_in_blocks(model: torch.nn.Module, rows: int) -> Iterator[None]:
    """Replace the forward of each attention module of `model` inside the `with` block."""
    modules = [layer.self_attn for layer in model.layers]
    for module in modules:
        module.forward = _BlockedAttention(module, rows)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


class _BlockedAttention:
    """esm/multihead_attention.py's forward for one unmasked sequence, `rows` queries at a time."""

    def __init__(self, module: torch.nn.Module, rows: int) -> None:
        self.module, self.rows = module, rows

    def __call__(self, query: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        module = self.module
        length, batch, _ = query.shape
        if batch != 1:
            raise ValueError(f"query: need one sequence, not {batch}")

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(length, module.num_heads, module.head_dim).transpose(0, 1)  # [H, T, D]

        q = heads(module.q_proj(query) * module.scaling)
        k, v = heads(module.k_proj(query)), heads(module.v_proj(query))
        if module.rot_emb is not None:
            q, k = module.rot_emb(q, k)
        out = torch.empty_like(q)
        buffer = q.new_empty(module.num_heads * self.rows * length)  # new memory for each block takes twice as long
        for start in range(0, length, self.rows):
            block = q[:, start : start + self.rows]
            scores = buffer[: block.shape[0] * block.shape[1] * length].view(*block.shape[:2], length)
            torch.bmm(block, k.transpose(1, 2), out=scores)
            torch.softmax(scores, dim=-1, out=scores)
            out[:, start : start + self.rows] = torch.bmm(scores, v)
        return module.out_proj(out.transpose(0, 1).reshape(length, batch, -1)), None
