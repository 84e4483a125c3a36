"""What users could pick instead: each function returns a pass over all sequences, a call a batch, inputs on the device.

Weights are random, of a published shape; every peer gets the same sequences.
"""

import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from packed_esm.embedding.packing import best_fit_decreasing
from packed_esm.families import ModelShape

Pass = list[Callable[[], object]]

EXTRACT_TOKENS = 4096  # fair-esm's scripts/extract.py, --toks_per_batch
LARGE_BATCH = 32768
ESME_TOKENS = 50000  # of its own benchmarks
HF_BATCH = 8


def fair_esm(
    base: torch.nn.Module, tokens: list[np.ndarray], device: str, toks_per_batch: int = EXTRACT_TOKENS
) -> Pass:
    """fair-esm as scripts/extract.py runs it: fp32, batches by rising length."""
    batches = padded_batches(sorted(tokens, key=len), toks_per_batch, device)

    return [partial(base, batch, repr_layers=[base.num_layers]) for batch in batches]


def hugging_face(
    shape: ModelShape,
    tokens: list[np.ndarray],
    device: str,
    dtype: torch.dtype,
    attention: str,
    budget: int = LARGE_BATCH,
) -> Pass:
    """transformers' EsmModel on padded batches of like length, of a budget of tokens each."""
    batches = padded_batches(sorted(tokens, key=len), budget, device)
    return _hugging_face_pass(_hugging_face_model(shape, device, dtype, attention), batches)


def hugging_face_plain(shape: ModelShape, tokens: list[np.ndarray], device: str) -> Pass:
    """transformers' EsmModel as it loads: fp32, sdpa, HF_BATCH sequences at a time in their order."""
    groups = [tokens[i : i + HF_BATCH] for i in range(0, len(tokens), HF_BATCH)]
    batches = [_padded(group, device) for group in groups]
    return _hugging_face_pass(_hugging_face_model(shape, device, torch.float32, "sdpa"), batches)


def hugging_face_packed(shape: ModelShape, tokens: list[np.ndarray], device: str) -> Pass:
    """transformers' EsmModel on packs, flash_attention_2 by `cu_seq_lens_*`."""
    model = _hugging_face_model(shape, device, torch.bfloat16, "flash_attention_2")
    return [
        partial(
            model,
            input_ids[None],
            cu_seq_lens_q=cu_seqlens,
            cu_seq_lens_k=cu_seqlens,
            max_length_q=longest,
            max_length_k=longest,
        )
        for input_ids, cu_seqlens, longest in _packs(tokens, LARGE_BATCH, device)
    ]


def esme(shape: ModelShape, tokens: list[np.ndarray], device: str) -> Pass:
    """ESME (Celik and Xie 2024), package esm-efficient: packed, bf16, flash-attn 2."""
    from esme import ESM2

    with torch.device(device):
        model = ESM2(shape.num_layers, shape.embed_dim, shape.attention_heads, dtype=torch.bfloat16).eval()
    return [
        partial(model.forward_representation, input_ids, (cu_seqlens, longest))
        for input_ids, cu_seqlens, longest in _packs(tokens, ESME_TOKENS, device)
    ]


def esm_cpp(shape: ModelShape, tokens: list[np.ndarray], in_int8: bool) -> Pass:
    """esm.cpp on a CPU: packed, fp32 or int8 of all products, as its scheduler packs them; with the LM head."""
    import esm_cpp
    from safetensors.torch import save_file
    from transformers import EsmForMaskedLM

    model = EsmForMaskedLM(_hugging_face_config(shape, "sdpa"))
    width = shape.embed_dim // shape.attention_heads
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for layer in range(shape.num_layers):  # transformers 5 stores none
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = 10000 ** -(torch.arange(0, width, 2) / width)
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, f"{folder}/model.safetensors")
        packed = esm_cpp.Model.load_from_safetensors(f"{folder}/model.safetensors")
        if in_int8:
            packed.quantize_weights()
        input_ids = [one.astype(np.int32) for one in tokens]
        packed.forward_scheduled(input_ids[:1])  # its weights may be mapped from the file
    return [partial(packed.forward_scheduled, input_ids)]


def peers_of_a_cpu(shape: ModelShape, tokens: list[np.ndarray], budget: int) -> dict[str, Pass]:
    """Return {name: its pass} of the peers that are installed and run on a CPU; padded ones in batches of `budget`."""
    passes = {}
    if importlib.util.find_spec("transformers"):
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            passes[f"HF EsmModel {name} sdpa, sorted"] = hugging_face(shape, tokens, "cpu", dtype, "sdpa", budget)
        if importlib.util.find_spec("esm_cpp"):
            version = importlib.metadata.version("esm-cpp")
            for name, in_int8 in (("fp32", False), ("int8", True)):
                passes[f"esm.cpp {version} {name}, packed"] = esm_cpp(shape, tokens, in_int8)
    return passes


def peers(shape: ModelShape, tokens: list[np.ndarray], device: str) -> dict[str, Callable[[], Pass]]:
    """Return {name: what builds its pass} of the peers that are installed, without fair-esm."""
    builders: dict[str, Callable[[], Pass]] = {}
    if importlib.util.find_spec("transformers"):
        builders["HF EsmModel fp32 sdpa, 8 at a time"] = lambda: hugging_face_plain(shape, tokens, device)
        if device == "cuda":
            for attention in ("sdpa", "flash_attention_2"):
                builders[f"HF EsmModel bf16 {attention}, sorted"] = lambda attention=attention: hugging_face(
                    shape, tokens, device, torch.bfloat16, attention
                )
            builders["HF EsmModel bf16 flash_attention_2, packed"] = lambda: hugging_face_packed(shape, tokens, device)
    if device == "cuda" and importlib.util.find_spec("esme"):
        builders["ESME bf16 flash-attn 2, packed"] = lambda: esme(shape, tokens, device)
    return builders


def padded_batches(tokens: list[np.ndarray], budget: int, device: str) -> list[torch.Tensor]:
    """Return padded batches, int64 [B, T], of the sequences in their order, each of at most `budget` tokens."""
    batches: list[list[np.ndarray]] = []
    longest = 0
    for one in tokens:
        longest = max(longest, len(one))
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = len(one)
        batches[-1].append(one)
    return [_padded(batch, device) for batch in batches]


def _padded(sequences: list[np.ndarray], device: str) -> torch.Tensor:
    batch = torch.full((len(sequences), max(map(len, sequences))), 1)
    for row, one in enumerate(sequences):
        batch[row, : len(one)] = torch.from_numpy(one.astype(np.int64))
    return batch.to(device)


def _packs(tokens: list[np.ndarray], budget: int, device: str) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    packs = []
    for indices in best_fit_decreasing([len(one) for one in tokens], budget):
        lengths = [len(tokens[i]) for i in indices]
        input_ids = torch.from_numpy(np.concatenate([tokens[i] for i in indices]).astype(np.int64)).to(device)
        cu_seqlens = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
        packs.append((input_ids, cu_seqlens, max(lengths)))
    return packs


def _hugging_face_model(shape: ModelShape, device: str, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    from transformers import EsmModel

    with torch.device(device):
        model = EsmModel(_hugging_face_config(shape, attention), add_pooling_layer=False)
    return model.to(device, dtype).eval()


def _hugging_face_config(shape: ModelShape, attention: str):  # noqa: ANN202
    from transformers import EsmConfig

    return EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.attention_heads,
        intermediate_size=4 * shape.embed_dim,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
        attn_implementation=attention,
    )


def _hugging_face_pass(model: torch.nn.Module, batches: list[torch.Tensor]) -> Pass:
    return [partial(model, batch, attention_mask=batch.ne(1).long()) for batch in batches]
