"""Write small checkpoints in both formats."""

import argparse
import json

import torch
from safetensors.torch import save_file

HF_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.rot_emb": "attention.self.rotary_embeddings",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}


def save_fair_esm(model, path, contacts=False, **changes):
    state = {}
    for name, tensor in model.state_dict().items():
        if "contact_head" not in name or contacts:
            prefix = "encoder." if name.startswith(("lm_head", "contact_head")) else "encoder.sentence_encoder."
            state[prefix + name] = tensor
    cfg = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    for name, tensor in changes.items():
        state.pop(name) if tensor is None else state.update({name: tensor})
    torch.save({"cfg": {"model": cfg}, "model": state}, path)
    return path


def save_esm1b(model, path):
    """Write an ESM-1b or ESM-1v as it is published: `args` with the names of fairseq, the contact head beside it."""
    state, regression = {}, {}
    for name, tensor in model.state_dict().items():
        prefix = "encoder." if name.startswith("lm_head") else "encoder.sentence_encoder."
        (regression if "contact_head" in name else state).update(
            {name if "contact_head" in name else prefix + name: tensor}
        )
    theirs = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
    values = {f"encoder_{name}" if name in theirs else name: value for name, value in vars(model.args).items()}
    del values["emb_layer_norm_before"]  # told by the tensors
    torch.save({"args": argparse.Namespace(**values), "model": state}, path)
    torch.save({"model": regression}, path.with_name(f"{path.stem}-contact-regression.pt"))
    return path


def hugging_face_tensors(model):
    """Return the tensors of a fair-esm model by the names that version 4 of transformers gave them.""" ""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("layers."):
            _, index, rest = name.split(".", 2)
            module, parameter = rest.rsplit(".", 1)
            name = f"esm.encoder.layer.{index}.{HF_LAYER[module]}.{parameter}"
        elif name.startswith("emb_layer_norm_after"):
            name = f"esm.encoder.{name}"
        elif name.startswith("embed_tokens"):
            name = "esm.embeddings.word_embeddings.weight"
        elif name.startswith("contact_head"):
            name = f"esm.{name}"
        elif name == "lm_head.weight":
            continue  # tied to the embedding
        state[name] = tensor.clone()
    return state


def hugging_face_config(model, **changes):
    """Return the config.json of a fair-esm model; a field that `changes` sets to ABSENT is left out."""
    config = {
        "architectures": ["EsmForMaskedLM"],
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.embed_dim,
        "intermediate_size": 4 * model.embed_dim,
        "num_attention_heads": model.attention_heads,
        "token_dropout": model.token_dropout,
        "emb_layer_norm_before": False,
        "layer_norm_eps": 1e-5,
        "vocab_size": 33,
        "mask_token_id": 32,
        "pad_token_id": 1,
    } | changes
    return {field: value for field, value in config.items() if value is not ABSENT}


ABSENT = object()


def write_folder(folder, tensors, config, file="model.safetensors"):
    """Write config.json and one file of weights, safetensors or a pickle."""
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    if file.endswith(".safetensors"):
        save_file(tensors, folder / file, metadata={"format": "pt"})
    else:
        torch.save(tensors, folder / file)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_vocabulary(folder, tokens):
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return folder


def save_hugging_face(model, folder, **config):
    """Write what transformers' EsmForMaskedLM.save_pretrained wrote in version 4."""
    tensors = hugging_face_tensors(model) | {"esm.embeddings.position_ids": torch.arange(1026)[None]}
    return write_folder(folder, tensors, hugging_face_config(model, **config))


def write_adapter(folder, base, tensors, **config):
    """Write a LoRA adapter as peft saves it: `tensors` by the names of the base's modules."""
    folder.mkdir()
    named = {f"base_model.model.esm.{name}": tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    settings = {
        "base_model_name_or_path": str(base),
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["query", "value"],
    } | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
