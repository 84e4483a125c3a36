"""The reference for ESM C: transformers' own `EsmcForMaskedLM` in fp32, one unpadded sequence at a time.

It shares no code with what it judges; the names of an `.pth` stand here a second time on purpose.
"""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import MissingPackageError


class Reference(nn.Module):
    """transformers' model, with what the validation asks of a reference."""

    mask_idx = 32

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.float().eval()

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks, which are streamed where the model does not fit."""
        return self.model.esmc.layers

    @torch.inference_mode()
    def outputs(self, tokens: np.ndarray, layers: Sequence[int]) -> dict:
        """Return {"representations": {layer: fp32 [T, E]}, "logits": fp32 [T, 64]} of one sequence, [T] tokens.

        Layer 0 is the embedding, layer i what block i leaves, the last one what the final norm leaves.
        """
        batch = torch.as_tensor(tokens.astype(np.int64), device=next(self.model.parameters()).device)[None]
        out = self.model(input_ids=batch, output_hidden_states=True)
        hidden = out.hidden_states
        return {"representations": {layer: hidden[layer][0] for layer in layers}, "logits": out.logits[0]}


def load(path: Path) -> Reference:
    """Return the reference of a folder, by transformers' own loader, or of an `.pth`."""
    import transformers

    if not hasattr(transformers, "EsmcForMaskedLM"):
        raise MissingPackageError(
            f"transformers {transformers.__version__} has no ESM C; pip install 'transformers>=5.24'"
        )
    if path.is_dir():
        return Reference(transformers.EsmcForMaskedLM.from_pretrained(path, dtype=torch.float32))
    return Reference(_of_pth(torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))))


def _of_pth(tensors: dict[str, torch.Tensor]) -> nn.Module:
    from transformers import EsmcConfig, EsmcForMaskedLM

    blocks = 1 + max(int(number) for name in tensors for number in re.findall(r"blocks\.(\d+)\.", name))
    width = tensors["embed.weight"].shape[1]
    config = EsmcConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        intermediate_size=tensors["transformer.blocks.0.ffn.3.weight"].shape[1],
    )
    found = {
        "esmc.embed_tokens.weight": tensors["embed.weight"],
        "esmc.norm.weight": tensors["transformer.norm.weight"],
    }
    model = EsmcForMaskedLM(config)
    if any(name.startswith("sequence_head.") for name in tensors):
        for number, module in ((0, "dense"), (2, "layer_norm"), (3, "decoder")):
            for kind in ("weight", "bias"):
                found[f"lm_head.{module}.{kind}"] = tensors[f"sequence_head.{number}.{kind}"]
    else:  # outputs that need the head are refused
        found |= {name: one for name, one in model.state_dict().items() if name.startswith("lm_head.")}
    for block in range(blocks):
        theirs, ours = f"transformer.blocks.{block}.", f"esmc.layers.{block}."
        for norm, name in (("input_layernorm", "attn.layernorm_qkv.0"), ("post_attention_layernorm", "ffn.0")):
            for kind in ("weight", "bias"):
                found[f"{ours}{norm}.{kind}"] = tensors[f"{theirs}{name}.{kind}"]
        q, k, v = tensors[f"{theirs}attn.layernorm_qkv.1.weight"].split(width)
        gate, up = tensors[f"{theirs}ffn.1.weight"].split(config.intermediate_size)
        found |= {
            f"{ours}self_attn.q_proj.weight": q,
            f"{ours}self_attn.k_proj.weight": k,
            f"{ours}self_attn.v_proj.weight": v,
            f"{ours}self_attn.o_proj.weight": tensors[f"{theirs}attn.out_proj.weight"],
            f"{ours}self_attn.q_norm.weight": tensors[f"{theirs}attn.q_ln.weight"],
            f"{ours}self_attn.k_norm.weight": tensors[f"{theirs}attn.k_ln.weight"],
            f"{ours}mlp.gate_proj.weight": gate,
            f"{ours}mlp.up_proj.weight": up,
            f"{ours}mlp.down_proj.weight": tensors[f"{theirs}ffn.3.weight"],
        }
    model.load_state_dict({name: one.float() for name, one in found.items()})
    return model
