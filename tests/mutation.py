"""Break the code on purpose, one row of the numerics at a time, and see that the tests notice.

  python tests/mutation.py [ROW ...]

Each mutation changes one place in a copy of the tree and runs the tests of the library there. A mutation
that no test notices is a survivor, and the exit status is 1. Prints one table row a mutation.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "workflow/packed_esm"
FIRST_TESTS = {
    "packed_layer": "esm2_flash",
    "triton_ops": "triton",
    "triton_attention": "triton",
    "integrity": "merge_and_integrity",
}  # where a module has no file of its own

# (row, what is broken, file, text, text instead); the rows are named in docs/mutations.md.
MUTATIONS = [
    ("1", "residue tokens one off", "tokenize.py", "FIRST_RESIDUE = 4", "FIRST_RESIDUE = 5"),
    ("1", "no eos", "tokenize.py", "tokens[0], tokens[-1] = CLS, EOS", "tokens[0], tokens[-1] = CLS, CLS"),
    ("1", "unknown letters pass", "tokenize.py", "if len(unknown):", "if False:"),
    ("2", "no token dropout factor", "esm2_flash.py", "embedding *= 1 - MASK_RATIO_TRAIN", "pass"),
    ("2", "mask tokens keep their embedding", "esm2_flash.py", "embedding[base_model.mask_idx] = 0.0", "pass"),
    ("2", "mask ratio of the whole pack", "esm2_flash.py", "masked[layout.device].diff() / layout.device.diff()", "(masked[-1] / layout.total).expand(len(layout.device) - 1)"),
    ("2", "mask ratio without cls and eos", "esm2_flash.py", "/ layout.device.diff()", "/ (layout.device.diff() - 2)"),
    ("3", "positions run on over the boundary", "packed_attention.py", "device=cu_seqlens.device) - starts", "device=cu_seqlens.device) - 0 * starts"),
    ("3", "positions start at 1 in all but the first", "packed_attention.py", "device=cu_seqlens.device) - starts", "device=cu_seqlens.device) - (starts - 1).clamp(min=0)"),
    ("3", "interleaved rotation", "packed_layer.py", "rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)", "rows"),
    ("3", "turned the other way", "operations.py", "part.mul_(angles[:, None, None])", "part.mul_(angles[:, None, None].conj())"),
    ("3", "k not turned", "operations.py", "pairs = qkv[:, :2]", "pairs = qkv[:, :1]"),
    ("3", "frequencies computed anew", "esm2_flash.py", "return frequencies[0]", "return 1.0 / (10000 ** (torch.arange(0, 2 * len(frequencies[0]), 2).float() / (2 * len(frequencies[0]))))"),
    ("4", "positions in half precision", "esm2_flash.py", "positions[:, None].to(torch.float32) * self.inv_freq", "positions[:, None].to(self.dtype).to(self.inv_freq.dtype) * self.inv_freq.to(self.dtype).float()"),
    ("4", "angles in half precision", "esm2_flash.py", "return torch.complex(angles.cos(), angles.sin())", "angles = angles.to(self.dtype).float()\n        return torch.complex(angles.cos(), angles.sin())"),
    ("5", "q scaled twice", "packed_attention.py", "lambda q, k, v: sdpa_attention(q, k", "lambda q, k, v: sdpa_attention(q * q.shape[-1] ** -0.5, k"),
    ("5", "scale left out", "packed_attention.py", "(*one, scale=softmax_scale)", "(*one, scale=softmax_scale or 1.0)"),
    ("6", "layer indices one off", "esm2_flash.py", "            elif index in layers:", "            elif index + 1 in layers:"),
    ("6", "final norm on every layer", "esm2_flash.py", "            if index == self.num_layers:", "            if index in layers:"),
    ("6", "no final norm on the last", "esm2_flash.py", "self.emb_layer_norm_after, torch.float32)[1]", "self.emb_layer_norm_after, torch.float32)[0]"),
    ("6", "negative layers one off", "esm2_flash.py", "(layer + num_layers + 1) % (num_layers + 1)", "(layer + num_layers) % num_layers if layer < 0 else layer"),
    ("7", "layer norm eps 1e-12", "packed_layer.py", "        self.final_norm = copy.deepcopy(layer.final_layer_norm).float()", "        self.final_norm = copy.deepcopy(layer.final_layer_norm).float()\n        self.final_norm.eps = self.attention_norm.eps = 1e-12"),
    ("8", "tanh GELU", "packed_layer.py", "F.gelu(self.fc1(normed))", 'F.gelu(self.fc1(normed), approximate="tanh")'),
    ("9", "softmax in half precision", "packed_attention.py", "attended = F.scaled_dot_product_attention(*one, scale=softmax_scale)", "q1, k1, v1 = one\n        attended = torch.softmax((q1 @ k1.transpose(-1, -2) * (softmax_scale or q1.shape[-1] ** -0.5)).half(), -1).to(v1.dtype) @ v1"),
    ("10", "padded with cls", "esm2_flash.py", "(len(batch), width), self.padding_idx, device", "(len(batch), width), 0, device"),
    ("10", "padding attended to", "esm2_flash.py", "key_mask = ~padding_mask", "key_mask = (~padding_mask | True)"),
    ("10", "mask ratio counts padding", "esm2_flash.py", "masked / (~padding_mask).sum(-1)", "masked / padding_mask.shape[-1]"),
    ("10", "pad rows not zeroed", "esm2_flash.py", "x.masked_fill(padding_mask[..., None], 0.0)", "x"),
    ("11", "mean with cls and eos", "pooling.py", '"mean": lambda rows: rows[1:-1].mean(0)', '"mean": lambda rows: rows.mean(0)'),
    ("11", "mean without the last residue", "pooling.py", '"mean": lambda rows: rows[1:-1].mean(0)', '"mean": lambda rows: rows[1:-2].mean(0)'),
    ("12", "sequences cut at 1,022", "tokenize.py", "    codes = np.frombuffer(", "    sequence = sequence[:1022]\n    codes = np.frombuffer("),
    ("13", "head dim fixed to 64", "packed_layer.py", "attention.num_heads, attention.head_dim, activation_dtype(dtype)", "attention.num_heads * attention.head_dim // 64 or 1, min(64, attention.num_heads * attention.head_dim), activation_dtype(dtype)"),
    ("14", "pickles executed", "checkpoints.py", "weights_only=True", "weights_only=False"),
    ("14", "prefixes kept", "checkpoints.py", r'r"^encoder\.(sentence_encoder\.)?"', r'r"^encoder\.(sentence_encoder\.)"'),
    ("14", "missing tensors pass", "checkpoints.py", "- state.keys() - CONTACT_HEAD", "- expected.keys()"),
    ("15", "query and key mixed up", "checkpoints.py", '"attention.self.query": "self_attn.q_proj"', '"attention.self.query": "self_attn.k_proj"'),
    ("15", "norms mixed up", "checkpoints.py", '"attention.LayerNorm": "self_attn_layer_norm",', '"attention.LayerNorm": "final_layer_norm",'),
    ("15", "frequencies of the file ignored", "checkpoints.py", "    missing = [name for name in names if name not in state]", "    missing = names"),
    ("16", "rotary tables kept by length", "esm2_flash.py", "        angles = positions[:, None]", "        if hasattr(ESM2WithFlashAttention, '_kept') and len(ESM2WithFlashAttention._kept) == len(positions) and ESM2WithFlashAttention._dim == len(self.inv_freq):\n            angles = ESM2WithFlashAttention._kept\n            return torch.complex(angles.cos(), angles.sin())\n        ESM2WithFlashAttention._kept, ESM2WithFlashAttention._dim = positions[:, None].float() * self.inv_freq, len(self.inv_freq)\n        angles = positions[:, None]"),
    ("neighbours", "attention over the whole pack", "packed_attention.py", "    bounds = cu_seqlens.tolist()", "    bounds = [0, int(cu_seqlens[-1])]"),
    ("shape", "packs not filled up", "packing.py", "filler_lengths(max(budget - real, 0))", "[]"),
    ("resume", "rows written in pack order", "embed.py", "result.columns[name][pack.indices] = vectors", "result.columns[name][sorted(pack.indices)] = vectors"),
    ("threads", "rotation cut by threads", "operations.py", "UNCUT_NUMBERS = 2**14", "UNCUT_NUMBERS = 2**40"),
    ("kernels", "norm without its last column", "triton_ops.py", "inside = column < WIDTH\n    mask = (row < rows)", "inside = column < WIDTH - 1\n    mask = (row < rows)"),
    ("kernels", "keys of the next sequence", "triton_attention.py", "scores = tl.where((key < length)[None, :], tl.dot(q, k.T), -float(\"inf\"))", "scores = tl.dot(q, k.T)"),
    ("kernels", "k turned by the angle of another pair", "triton_ops.py", "2 * (pair % HALF)", "2 * (pair // 2 % HALF)"),
    ("kernels", "mean with eos", "triton_ops.py", "for first in range(start + 1, end - 1, ROWS)", "for first in range(start + 2, end - 1, ROWS)"),
    ("kernels", "sums of the softmax not corrected", "triton_attention.py", "v, sums * correction[:, None])", "v, sums)"),
    ("validator", "validator never fails", "validation.py", "    if failures:\n        raise", "    if False:\n        raise"),
    ("validator", "checksums not checked", "integrity.py", 'wrong = row_checksums(table["digest"].to_pylist(), columns) != table["checksum"].to_numpy()', "wrong = np.zeros(len(table), dtype=bool)"),
]  # fmt: skip


def first_failure(output: str) -> str:
    """Return the name of the first test that failed."""
    match = re.search(r"^(?:FAILED|ERROR) (?:tests/unit/)?(\S+)", output, re.MULTILINE)
    return match.group(1) if match else "(no test named)"


def run_tests(folder: Path, *arguments: str) -> tuple[bool, str]:
    """Run tests in the copy of the tree; return (some failed, the first of them)."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    # No bytecode files: two mutations of one size within one second would share theirs.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, env=environment)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1, first_failure(done.stdout)


def run_mutation(folder: Path, file: str, old: str, new: str) -> tuple[bool, str]:
    """Apply one mutation in a copy of the tree; return (noticed, by which test)."""
    path = (folder / LIBRARY / file).resolve()
    original = path.read_text(encoding="utf-8")
    if original.count(old) != 1:
        raise SystemExit(f"{file}: {old!r} stands {original.count(old)} times, not once; mend the mutation")
    path.write_text(original.replace(old, new), encoding="utf-8")
    try:
        own = run_tests(folder, f"tests/unit/test_{FIRST_TESTS.get(path.stem, path.stem)}.py")
        return own if own[0] else run_tests(folder, "tests/unit")
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> int:
    rows = sys.argv[1:]
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", ".whl", "results", ".snakemake", "__pycache__", "logs")
        shutil.copytree(ROOT, folder, ignore=ignored)
        failed, test = run_tests(folder, "tests/unit", "--numprocesses", "2")
        if failed:
            raise SystemExit(f"the tests fail without a mutation ({test}): nothing can be concluded")
        print("| row | broken on purpose | noticed by |\n|---|---|---|")
        for row, what, file, old, new in MUTATIONS:
            if rows and row not in rows:
                continue
            noticed, test = run_mutation(folder, file, old, new)
            survivors += not noticed
            print(f"| {row} | {what} | {f'`{test}`' if noticed else '**SURVIVED**'} |", flush=True)
    print(f"\n{survivors} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
