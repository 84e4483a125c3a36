"""The checkpoint and the block of the toy."""

import json
from pathlib import Path
from types import SimpleNamespace

from packed_esm.errors import CheckpointError
from safetensors.torch import load_file
from torch import nn


class Toy(nn.Module):
    """x becomes x + W norm(x) in each layer."""

    padding_idx, mask_idx = 1, 32
    contact_head = None

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.absent_heads = frozenset({"contact_head"})
        self.embed_tokens = nn.Embedding(33, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        for layer in self.layers:
            layer.self_attn = SimpleNamespace(embed_dim=width, num_heads=1, head_dim=width, rot_emb=None)
        self.emb_layer_norm_after = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, 33)

    def packed_block(self, index, device, dtype):
        return Block(self.layers[index].to(device, dtype), dtype)


class Block(nn.Module):
    def __init__(self, linear, dtype):
        super().__init__()
        self.linear, self.dtype = linear, dtype

    def forward(self, x, delta, rotation, attend):
        del rotation, attend
        x = x if delta is None else x + delta
        return x, self.linear(nn.functional.layer_norm(x, x.shape[-1:]).to(self.dtype))


def load(path: Path, mapped: bool = False) -> Toy:
    del mapped
    config = json.loads((path / "config.json").read_text())
    model = Toy(config["num_hidden_layers"], config["hidden_size"])
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {error}; fetch it again") from error
    return model.eval()
