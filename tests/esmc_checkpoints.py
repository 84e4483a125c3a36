"""A small random ESM C, and its two kinds of checkpoints."""

import json

import torch


def random_esmc(num_layers=3, embed_dim=128, heads=2, seed=0):
    """Return transformers' EsmcForMaskedLM with random weights, none of them 0 or 1, on torch's default device."""
    from transformers import EsmcConfig, EsmcForMaskedLM

    config = EsmcConfig(
        hidden_size=embed_dim,
        num_hidden_layers=num_layers,
        num_attention_heads=heads,
        intermediate_size=-(-embed_dim * 8 // 3 // 256) * 256,
    )
    model = EsmcForMaskedLM(config).eval()
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            noise = torch.randn(one.shape, generator=generator)
            one.copy_(noise / one.shape[-1] ** 0.5 if one.ndim > 1 else noise / 4 + ("norm" in name))
    return model


def save_esmc(model, folder, **changes):
    """Write a Hugging Face folder; `changes` of its config.json."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def pth_of(model):
    """Return the tensors with the names of EvolutionaryScale's `esm` (esm/models/esmc.py)."""
    top = {
        "esmc.embed_tokens.weight": "embed.weight",
        "esmc.norm.weight": "transformer.norm.weight",
        **{
            f"lm_head.{name}.{kind}": f"sequence_head.{number}.{kind}"
            for number, name in ((0, "dense"), (2, "layer_norm"), (3, "decoder"))
            for kind in ("weight", "bias")
        },
    }
    state = model.state_dict()
    found = {theirs: state[ours].clone() for ours, theirs in top.items()}
    for layer in range(len(model.esmc.layers)):
        ours, theirs = f"esmc.layers.{layer}.", f"transformer.blocks.{layer}."
        for kind in ("weight", "bias"):
            found[f"{theirs}attn.layernorm_qkv.0.{kind}"] = state[f"{ours}input_layernorm.{kind}"].clone()
            found[f"{theirs}ffn.0.{kind}"] = state[f"{ours}post_attention_layernorm.{kind}"].clone()
        qkv = [state[f"{ours}self_attn.{name}_proj.weight"] for name in "qkv"]
        found[f"{theirs}attn.layernorm_qkv.1.weight"] = torch.cat(qkv)
        found[f"{theirs}ffn.1.weight"] = torch.cat([state[f"{ours}mlp.{name}_proj.weight"] for name in ("gate", "up")])
        for one, other in (
            ("self_attn.q_norm", "attn.q_ln"),
            ("self_attn.k_norm", "attn.k_ln"),
            ("self_attn.o_proj", "attn.out_proj"),
            ("mlp.down_proj", "ffn.3"),
        ):
            found[f"{theirs}{other}.weight"] = state[f"{ours}{one}.weight"].clone()
    return found
