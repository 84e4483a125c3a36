"""What products in 8 bits cost, with outliers planted and without: a table, a JSON.

  python tests/benchmarks/eight_bits.py --json eight_bits.json

The demonstration model runs on the CPU, with proteins of the example, and is compared with fair-esm in fp32. `all four`
are the products of a block (q, k and v; the output of the attention; fc1; fc2), `feed-forward` the last two; what is
not in 8 bits is bf16. `columns` says whose inputs have columns of like sizes, by estimates from the weights, see
`kernels/int8`. Outliers are planted in every block: FOUR columns become TIMES times larger, and what follows takes
it back, or only BACK times.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from packed_esm.checkpoints.loading import load_esm2  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.kernels.int8 import FAR, LEAST_GELU, Int8Linear  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention  # noqa: E402
from packed_esm.outputs.measures import residue_errors  # noqa: E402
from packed_esm.sequences.alphabet import normalise  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.sequences.tokens import tokenize  # noqa: E402
from packed_esm.validation.reference import reference_outputs  # noqa: E402

FOUR, TIMES, BACK = 4, 50.0, 7.0
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max
PRODUCTS = {"all four": ("qkv", "out", "fc1", "fc2"), "feed-forward": ("fc1", "fc2")}
FORMS = [
    ("bf16", "", ""),
    ("fp8", "feed-forward", "none"),
    ("fp8", "all four", "none"),
    ("int8", "all four", "none"),
    ("int8", "all four", "behind norms"),
    ("int8", "all four", "all"),
    ("int8", "feed-forward", "none"),
    ("int8", "feed-forward", "behind norms"),
    ("int8", "feed-forward", "all"),
]


class Fp8Linear(nn.Module):
    """x W^T + b with both matrices rounded to fp8 (e4m3), a scale for each row."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = _rounded(weight), bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(_rounded(x.float()), self.weight, self.bias).bfloat16()


def _rounded(rows: torch.Tensor) -> torch.Tensor:
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST_FP8
    return (rows / scale).to(torch.float8_e4m3fn).float() * scale


def plant(layers: nn.ModuleList, norms: float = 0, inside: bool = False) -> None:
    """Plant outliers behind the norms, taken back `norms` times (0: none), and in v and in the hidden layer."""
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        attention = layer.self_attn
        columns = torch.randperm(attention.embed_dim, generator=generator)[:FOUR]
        hidden = torch.randperm(4 * attention.embed_dim, generator=generator)[:FOUR]
        if norms:
            projections = [attention.q_proj, attention.k_proj, attention.v_proj]
            for norm, after in ((layer.self_attn_layer_norm, projections), (layer.final_layer_norm, [layer.fc1])):
                norm.weight[columns] *= TIMES
                norm.bias[columns] *= TIMES
                for linear in after:
                    linear.weight[:, columns] /= norms
        if inside:
            for first, second, these in (
                (attention.v_proj, attention.out_proj, columns),
                (layer.fc1, layer.fc2, hidden),
            ):
                first.weight[these] *= TIMES
                first.bias[these] *= TIMES
                second.weight[:, these] /= TIMES


def plant_in_stream(model: nn.Module) -> None:
    """Make two columns of the residual stream TIMES times as large as the others."""
    model.embed_tokens.weight[:, :2] += TIMES * model.embed_tokens.weight.std()


PLANTED: dict[str, Callable[[nn.Module], None]] = {
    "as trained": lambda model: None,
    "norms": lambda model: plant(model.layers, norms=TIMES),
    "norms, hidden layer and v": lambda model: plant(model.layers, norms=TIMES, inside=True),
    "norms, partly taken back": lambda model: plant(model.layers, norms=BACK),
    "residual stream": plant_in_stream,
}


def sizes(layer: nn.Module) -> dict[str, torch.Tensor]:
    """Return how large the columns of the input of each product are, roughly, by the weights alone."""
    found = {}
    for name, norm in (("qkv", layer.self_attn_layer_norm), ("fc1", layer.final_layer_norm)):
        found[name] = (norm.weight.square() + norm.bias.square()).sqrt()
    v, norm = layer.self_attn.v_proj, layer.self_attn_layer_norm
    found["out"] = ((v.weight * norm.weight).square().sum(1) + (v.weight @ norm.bias + v.bias).square()).sqrt()
    fc1, norm = layer.fc1, layer.final_layer_norm
    far = fc1.weight @ norm.bias + fc1.bias + FAR * (fc1.weight * norm.weight).square().sum(1).sqrt()
    found["fc2"] = F.gelu(far) - LEAST_GELU
    return found


def with_products(base: nn.Module, form: str, products: Sequence[str], columns: str) -> ESM2WithFlashAttention:
    """Return the packed model with some products in 8 bits; the kept form is the product's own."""
    if (form, tuple(products), columns) == ("int8", PRODUCTS["feed-forward"], "all"):
        return ESM2WithFlashAttention(base, "cpu", torch.int8)
    model = ESM2WithFlashAttention(base, "cpu", torch.bfloat16)
    plain = ESM2WithFlashAttention(base, "cpu", torch.float32)  # for its fp32 weights in our order
    for block, exact, layer in zip(model.layers, plain.layers, base.layers, strict=True):
        places = {"qkv": "qkv", "out": "out_proj", "fc1": "feed_forward.fc1", "fc2": "feed_forward.fc2"}
        large = sizes(layer)
        for name in products:
            linear = exact.get_submodule(places[name])
            weight, bias = linear.weight.detach(), linear.bias.detach()
            if form == "fp8":
                block.set_submodule(places[name], Fp8Linear(weight, bias))
                continue
            spread = columns == "all" or (columns == "behind norms" and name in ("qkv", "fc1"))
            size = large[name] if spread else weight.abs().amax(0)  # the same share for all columns
            least = LEAST_GELU if spread and name == "fc2" else None
            block.set_submodule(places[name], Int8Linear(weight, bias, size, least))
    return model


@torch.inference_mode()
def worst(model: ESM2WithFlashAttention, tokens: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """Return 1 - cosine of the worst residue and of the worst mean vector, and the largest relative L2."""
    found = {"residue": 0.0, "mean_vector": 0.0, "relative_l2": 0.0}
    for one in iterate_packs(tokens, 4096):
        out = model.forward_packed(
            torch.from_numpy(one.input_ids).int(), torch.from_numpy(one.cu_seqlens), one.max_seqlen
        )
        rows = out["representations"][model.num_layers].numpy()
        for place, i in enumerate(one.indices):
            got, want = rows[one.cu_seqlens[place] + 1 : one.cu_seqlens[place + 1] - 1], truth[i]
            errors = residue_errors(got, want)
            means = got.mean(0, dtype=np.float64), want.mean(0, dtype=np.float64)
            cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
            now = (1 - errors["min_residue_cosine"], 1 - cosine, errors["relative_l2"])
            found = {name: max(before, float(x)) for (name, before), x in zip(found.items(), now, strict=True)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    records = list(read_records(ROOT / "config/example/domains.fasta"))
    chosen = np.random.default_rng(1).choice(len(records), args.proteins, replace=False)
    tokens = [tokenize(normalise(records[i].sequence)) for i in chosen]
    rows = []
    for planted, change in PLANTED.items():
        base = load_esm2(DEMO_PATH)
        with torch.no_grad():
            change(base)
        layer = base.num_layers
        truth = [reference_outputs(base, one, [layer])["representations"][layer][1:-1].numpy() for one in tokens]
        for form, products, columns in FORMS:
            with torch.no_grad():
                model = with_products(base, form, PRODUCTS.get(products, ()), columns)
            found = worst(model, tokens, truth)
            rows.append({"planted": planted, "form": form, "products": products, "columns": columns, **found})
            print(
                f"{planted:26} {form:5} {products:13} {columns:13} "
                + "  ".join(f"{k} {v:.1e}" for k, v in found.items()),
                flush=True,
            )
    if args.json:
        result = {**card("cpu"), "proteins": args.proteins, "rows": rows}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
