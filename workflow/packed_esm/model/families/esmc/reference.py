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

# Of each module of transformers: its name in an `.pth`, and which part of how many of that tensor.
_IN_PTH = {
    "esmc.embed_tokens": ("embed", 0, 1),
    "esmc.norm": ("transformer.norm", 0, 1),
    "lm_head.dense": ("sequence_head.0", 0, 1),
    "lm_head.layer_norm": ("sequence_head.2", 0, 1),
    "lm_head.decoder": ("sequence_head.3", 0, 1),
    "input_layernorm": ("attn.layernorm_qkv.0", 0, 1),
    "self_attn.q_proj": ("attn.layernorm_qkv.1", 0, 3),
    "self_attn.k_proj": ("attn.layernorm_qkv.1", 1, 3),
    "self_attn.v_proj": ("attn.layernorm_qkv.1", 2, 3),
    "self_attn.q_norm": ("attn.q_ln", 0, 1),
    "self_attn.k_norm": ("attn.k_ln", 0, 1),
    "self_attn.o_proj": ("attn.out_proj", 0, 1),
    "post_attention_layernorm": ("ffn.0", 0, 1),
    "mlp.gate_proj": ("ffn.1", 0, 2),
    "mlp.up_proj": ("ffn.1", 1, 2),
    "mlp.down_proj": ("ffn.3", 0, 1),
}


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


def reference_tokens(sequence: str) -> np.ndarray:
    """Return the tokens of a sequence, int64 [L + 2] with cls and eos, from transformers' own tokenizer."""
    from transformers import EsmcTokenizer

    return np.array(EsmcTokenizer()(sequence)["input_ids"], np.int64)


def load_reference(path: Path) -> Reference:
    """Return the reference of a folder, by transformers' own loader, or of an `.pth`."""
    from transformers import EsmcForMaskedLM

    if path.is_dir():
        return Reference(EsmcForMaskedLM.from_pretrained(path, dtype=torch.float32))
    return Reference(_of_pth(torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))))


def _of_pth(tensors: dict[str, torch.Tensor]) -> nn.Module:
    from transformers import EsmcConfig, EsmcForMaskedLM

    width = tensors["embed.weight"].shape[1]
    config = EsmcConfig(
        hidden_size=width,
        num_hidden_layers=1 + max(int(number) for name in tensors for number in re.findall(r"blocks\.(\d+)\.", name)),
        num_attention_heads=width // 64,
        intermediate_size=tensors["transformer.blocks.0.ffn.3.weight"].shape[1],
    )
    model = EsmcForMaskedLM(config)
    has_head = any(name.startswith("sequence_head.") for name in tensors)
    for name, one in model.named_parameters():
        module, _, parameter = name.rpartition(".")
        layer = re.match(r"esmc\.layers\.(\d+)\.", module)
        theirs, part, count = _IN_PTH[module[layer.end() :] if layer else module]
        if has_head or not theirs.startswith("sequence_head."):  # outputs that need the head are refused
            theirs = f"transformer.blocks.{layer[1]}.{theirs}" if layer else theirs
            one.data = tensors[f"{theirs}.{parameter}"].chunk(count)[part].float()
    return model
