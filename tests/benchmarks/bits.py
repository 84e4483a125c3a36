"""Digests of the bits of embeddings, to compare machines: one for each shape, dtype and attention backend.

  python tests/benchmarks/bits.py --json bits.json

200 random proteins in packs of one size. Proteins and weights are made on the host, by steps that round alike on every
machine; the digest of the weights shows whether they are the same. A digest is the sha256 of the last layer of every
token, and of the means, in float32. Equal digests are equal bits of every value.
"""

import argparse
import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from esm.model.esm2 import ESM2

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from conftest import random_tokens  # noqa: E402
from forward import variants, versions  # noqa: E402
from packed_esm.embedding.device import DTYPES, device_class  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.families import MODELS, ModelShape  # noqa: E402
from packed_esm.kernels.pooling import pool_packed  # noqa: E402
from packed_esm.model.backends import BACKENDS  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention  # noqa: E402
from packed_esm.system.versions import backend_version  # noqa: E402

SHAPES = {
    "tiny": ModelShape(2, 64, 4),
    "8M": MODELS["esm2_t6_8M_UR50D"],
    "650M": MODELS["esm2_t33_650M_UR50D"],
    "3B, 4 layers": replace(MODELS["esm2_t36_3B_UR50D"], num_layers=4),
}
PROTEINS = 200
TOKENS_PER_PACK = 16384  # on every machine: the bits depend on it


def proteins(count: int) -> list[np.ndarray]:
    """Return tokens of random proteins (uint8 [L + 2] each) of 30 to 1,022 residues, more of the short."""
    return random_tokens(np.random.default_rng(0).integers(30, 1023, (2, count)).min(0))


def model_of(shape: ModelShape, device: str) -> ESM2:
    """Return a model whose weights are the same on every machine.

    torch's own random numbers can differ in the last bit between vector units. numpy's of [0, 1) have no rounding, and
    each of the following steps rounds once.
    """
    with torch.device(device):
        model = ESM2(shape.num_layers, shape.embed_dim, shape.attention_heads).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = rng.random(tuple(parameter.shape), np.float32) - np.float32(0.5)
            if "layer_norm" in name:
                values = values * np.float32(0.5) + np.float32(name.endswith("weight"))
            elif parameter.dim() == 2 and "embed" not in name:
                larger = 2 if "q_proj" in name or "k_proj" in name else 1  # attention far from uniform
                values *= np.float32(larger * np.sqrt(12 / parameter.shape[1]))
            parameter.copy_(torch.from_numpy(values))
        for block in model.layers:
            frequencies = block.self_attn.rot_emb.inv_freq
            exponents = np.arange(len(frequencies)) / len(frequencies)
            frequencies.copy_(torch.from_numpy((10000.0**-exponents).astype(np.float32)))
    return model


def digest_of_weights(model: ESM2) -> str:
    """Return the sha256 of all weights and rotary frequencies."""
    digest = hashlib.sha256()
    for tensor in (*model.parameters(), *model.buffers()):
        digest.update(tensor.detach().cpu().numpy())
    return digest.hexdigest()


def digest_of_embeddings(model: ESM2WithFlashAttention, tokens: list[np.ndarray], budget: int) -> str:
    """Return the sha256 of the last layer of every token and of the means, pack by pack, without filler."""
    digest = hashlib.sha256()
    for pack in iterate_packs(tokens, budget):
        input_ids = torch.from_numpy(pack.input_ids).to(model.device).int()
        cu_seqlens = torch.from_numpy(pack.cu_seqlens)
        last = model.forward_packed(input_ids, cu_seqlens, pack.max_seqlen)["representations"][model.num_layers]
        if not last.isfinite().all():
            raise SystemExit("values are not finite: their digest would say nothing")
        (means,), _ = pool_packed(last, cu_seqlens, len(pack.indices), ["mean"], model.kernels != "torch")
        for values in (last[: pack.real_tokens], means):
            digest.update(values.cpu().numpy())
    return digest.hexdigest()


def rows_of(name: str, args: argparse.Namespace) -> list[dict]:
    """Return a row for each dtype and backend that runs here with a shape; print each."""
    base, tokens, rows = model_of(SHAPES[name], args.device), proteins(args.proteins), []
    weights = digest_of_weights(base)
    for dtype, backend in variants(args.device, ["fp32"] if args.device == "cpu" else ["fp16", "bf16"]):
        if backend not in args.backends:
            continue
        start = time.perf_counter()
        model = ESM2WithFlashAttention(base, args.device, DTYPES[dtype], backend)
        sha256 = digest_of_embeddings(model, tokens, args.tokens_per_pack)
        row = {"shape": name, "dtype": dtype, "attention": backend_version(backend), "sha256": sha256}
        rows.append(row | {"weights_sha256": weights})
        seconds = time.perf_counter() - start
        print(f"| {' | '.join(row.values())} |  ({seconds:.1f} s, weights {weights[:12]})", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES)[1:], choices=SHAPES, help="default: all but tiny")
    parser.add_argument(
        "--backends", nargs="+", default=BACKENDS[:-1], choices=BACKENDS, help="default: all but padded"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--proteins", type=int, default=PROTEINS, help="default: %(default)s")
    parser.add_argument("--tokens-per-pack", type=int, default=TOKENS_PER_PACK, help="default: %(default)s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    about = card(args.device) | {"device_class": device_class(torch.device(args.device)), "versions": versions()}
    about |= {"proteins": args.proteins, "tokens_per_pack": args.tokens_per_pack}
    print(json.dumps(about))
    rows = [row for name in args.shapes for row in rows_of(name, args)]
    if args.json:
        args.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
