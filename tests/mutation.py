"""Break the code on purpose, one fact or promise at a time, and check that the tests notice.

  python tests/mutation.py [FACT ...]

Each mutation changes one place in a copy of the tree and runs the tests there that can notice it. One that they do not
notice is a survivor, and the exit status is 1. Prints the table of docs/mutations.md, one row per mutation.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "workflow/packed_esm"
# tests/unit/*/test_*.py that can notice a change, the likeliest first, by fact or else by module; others by its name.
TESTS = {
    "ESM-1b": ("esm1b",),
    "digest": ("digest", "stages"),
    "loading": ("loading", "reference_model", "hugging_face"),
    "Hugging Face": ("hugging_face",),
    "malformed": ("malformed",),
    "adapter": ("hugging_face",),
    "own way in": ("reference_model", "hugging_face"),
    "contacts": (
        "contacts",
        "embedder",
        "residues",
    ),
    "logits": (
        "contacts",
        "embedder",
        "residues",
    ),
    "masked copies": ("masked", "masked_job"),
    "variants": ("variants",),
    "bits": ("reuse", "merge_and_integrity"),
    "earlier residues": ("earlier_residues",),
    "golden": ("golden",),
    "inputs": ("config", "inputs", "samples"),
    "samples": ("samples",),
    "command": ("main", "workflow"),
    "device": ("device",),
    "results": ("results_of_a_run",),
    "job resources": ("job_resources",),
    "streamed weights": ("layers", "streamed", "gpu_memory", "stages", "job_resources"),
    "windows": (
        "long_proteins",
        "run",
        "embedder",
    ),
    "validator": (
        "measures",
        "run",
        "residues",
        "reference",
        "merge_and_integrity",
    ),
    "masks": ("fasta", "chunking"),
    "options": ("options",),
    "sheets": ("config",),
    "configuration": ("config",),
    "arguments": ("arguments",),
    "translation": ("translation",),
    "bounded reading": ("fasta", "translation", "memory"),
    "job": ("residues",),
    "repeat": ("repeat",),
    "colours": ("figures_and_page",),
    "exports": ("export",),
    "metadata": ("metadata",),
    "accessions": ("accessions",),
    "report": ("figures_and_page",),
    "nearest": ("neighbours",),
    "embedder": (
        "embedder",
        "packing",
    ),
    "esm2": (
        "esm2",
        "embedder",
    ),
    "files": (
        "files",
        "merge_and_integrity",
    ),
    "manifest": (
        "files",
        "merge_and_integrity",
    ),
    "merge": ("merge_and_integrity",),
    "merge_residues": ("residues", "merge_and_integrity"),
    "residue_checks": ("residues",),
    "columns": ("esm2",),
    "table": ("pooling", "measures", "reference", "residues"),
    "layouts": ("residues", "long_proteins"),
    "torch_ops": (
        "torch_ops",
        "esm2",
        "embedder",
    ),
    "attention": (
        "attention",
        "esm2",
        "embedder",
    ),
    "block": (
        "esm2",
        "embedder",
    ),
    "padded": ("esm2",),
    "pt_files": ("export",),
    "records": ("chunking",),
    "settings": ("merge_and_integrity", "residues"),
    "residues": (
        "residues",
        "embedder",
    ),
    "triton_attention": ("triton",),
    "triton_contacts": ("triton",),
    "host_copies": ("residues", "embedder"),
    "triton_ops": ("triton",),
    "weights": ("esm2",),
    "embeddings": (
        "merge_and_integrity",
        "residues",
    ),
}

# (fact, what is broken, file, text, text instead)
MUTATIONS = [
    ("tokens", "residue tokens one off", "sequences/tokens.py", "FIRST_RESIDUE = 4", "FIRST_RESIDUE = 5"),
    ("tokens", "no eos", "sequences/tokens.py", "tokens[0], tokens[-1] = CLS, EOS", "tokens[0], tokens[-1] = CLS, CLS"),
    ("tokens", "unknown letters pass", "sequences/tokens.py", "if len(unknown):", "if False:"),
    ("tokens", "mask a place early", "sequences/tokens.py", "len(part) + 1 for part in parts[:-1]", "len(part) for part in parts[:-1]"),
    ("masks", "length of a mask as written", "sequences/alphabet.py", "len(sequence) - (len(MASKED) - 1) * mask_count(sequence)", "len(sequence)"),
    ("masks", "cut in the middle of a mask", "sequences/alphabet.py", "if MASKED not in sequence:", "if True:"),
    ("masks", "mask replaced by X", "sequences/alphabet.py", "return MASKED.join(part", 'return "X".join(part'),
    ("masks", "not counted in the manifest", "sequences/records.py", "masks=mask_count(kept.sequence)", "masks=0"),
    ("masks", "rejected in capitals", "sequences/alphabet.py", "sequence = sequence.replace(MASKED.upper(), MASKED)", "pass"),
    ("options", "any word taken", "errors.py", "if value not in allowed:", "if False:"),
    ("options", "words of a list not looked at", "options.py", "for word in value if isinstance(value, list | tuple) else (value,):", "for word in () if isinstance(value, list | tuple) else (value,):"),
    ("options", "another default than the schema's", "sequences/options.py", "        128,\n", "        64,\n"),
    ("options", "another word for None than the schema's", "embedding/options.py", 'none="auto"', 'none="none"'),
    ("configuration", "defaults of a section lost", "planning/config.py", "filled[key] = with_defaults(filled[key], rule)", "pass"),
    ("configuration", "sections can be changed", "planning/config.py", "return MappingProxyType({key: _frozen(item) for key, item in value.items()})", "return {key: _frozen(item) for key, item in value.items()}"),
    ("configuration", "an old name taken for a misspelt one", "planning/config.py", "if key in RENAMED:", "if False:"),
    ("arguments", "windows told where long proteins are truncated", "planning/arguments.py", "[LongProteins] if windows else []", "[LongProteins]"),
    ("options", "an overlap too long goes on", "sequences/options.py", "        _ = self.windows  # raises OptionError if they are impossible\n", ""),
    ("sheets", "a byte order mark kept", "system/sheets.py", 'line.removeprefix("\\ufeff") if number == 1 else line', "line"),
    ("sheets", "cells beyond the header dropped, empty or not", "system/sheets.py", "while end > least and not row[end - 1]:", "while end > least and least:"),
    ("sheets", "home folders not expanded", "planning/inputs.py", "return Path(os.path.expanduser(text))", "return Path(text)"),
    ("bounded reading", "records of any length", "sequences/fasta.py", "len(letters) > max_letters:", "False:"),
    ("bounded reading", "headers of any length", "sequences/fasta.py", 'if len(rest) == MAX_HEADER and not rest.endswith("\\n"):', "if False:"),
    ("bounded reading", "a header in the middle of a line", "sequences/fasta.py", "is_header = at_start and text", "is_header = text"),
    ("bounded reading", "letters of the record before kept", "sequences/fasta.py", "    letters.clear()\n", "    letters[:0] = b\"\"\n"),
    ("bounded reading", "codons between blocks lost", "sequences/translation.py", "slice(start, start + BLOCK + overlap)", "slice(start, start + BLOCK)"),
    ("bounded reading", "blocks of the other strand from its end", "sequences/translation.py", "for end in range(length, 0, -BLOCK)]", "for end in range(BLOCK, length + BLOCK, BLOCK)]"),
    ("token dropout", "no token dropout factor", "checkpoints/weights.py", "embedding *= 1 - MASK_RATIO_TRAIN", "pass"),
    ("token dropout", "mask tokens keep their embedding", "checkpoints/weights.py", "embedding[base_model.mask_idx] = 0.0", "pass"),
    ("token dropout", "mask ratio of the whole pack", "model/esm2.py", "masked[layout.device].diff() / layout.device.diff()", "(masked[-1] / layout.total).expand(len(layout.device) - 1)"),
    ("token dropout", "mask ratio without cls and eos", "model/esm2.py", "/ layout.device.diff()", "/ (layout.device.diff() - 2)"),
    ("rotary positions", "positions run on over the boundary", "model/attention.py", "device=cu_seqlens.device) - starts", "device=cu_seqlens.device) - 0 * starts"),
    ("rotary positions", "positions start at 1 in all but the first", "model/attention.py", "device=cu_seqlens.device) - starts", "device=cu_seqlens.device) - (starts - 1).clamp(min=0)"),
    ("rotary positions", "interleaved rotation", "model/block.py", "rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)", "rows"),
    ("rotary positions", "turned the other way", "kernels/torch_ops.py", "part.mul_(angles[:, None, None])", "part.mul_(angles[:, None, None].conj())"),
    ("rotary positions", "k not turned", "kernels/torch_ops.py", "pairs = qkv[:, :2]", "pairs = qkv[:, :1]"),
    ("rotary positions", "frequencies computed anew", "checkpoints/weights.py", "return frequencies[0]", "return 1.0 / (10000 ** (torch.arange(0, 2 * len(frequencies[0]), 2).float() / (2 * len(frequencies[0]))))"),
    ("rotary precision", "positions in half precision", "model/esm2.py", "positions[:, None].to(torch.float32) * self.inv_freq", "positions[:, None].to(self.dtype).to(self.inv_freq.dtype) * self.inv_freq.to(self.dtype).float()"),
    ("rotary precision", "angles in half precision", "model/esm2.py", "return torch.complex(angles.cos(), angles.sin())", "angles = angles.to(self.dtype).float()\n        return torch.complex(angles.cos(), angles.sin())"),
    ("scale", "q scaled twice", "model/attention.py", "lambda q, k, v: sdpa_attention(q, k", "lambda q, k, v: sdpa_attention(q * q.shape[-1] ** -0.5, k"),
    ("scale", "scale left out", "model/attention.py", "(*one, scale=softmax_scale)", "(*one, scale=softmax_scale or 1.0)"),
    ("layers", "layer indices one off", "model/esm2.py", "index, index in layers)", "index, index + 1 in layers)"),
    ("layers", "final norm on every layer", "model/esm2.py", "        if index == self.num_layers:", "        if is_wanted:"),
    ("layers", "no final norm on the last", "model/esm2.py", "self.emb_layer_norm_after, torch.float32)[1]", "self.emb_layer_norm_after, torch.float32)[0]"),
    ("layers", "negative layers one off", "outputs/columns.py", "(layer + num_layers + 1) % (num_layers + 1)", "(layer + num_layers) % num_layers if layer < 0 else layer"),
    ("norm", "layer norm eps 1e-12", "model/block.py", "        self.final_norm = module_on_device(layer.final_layer_norm, device)", "        self.final_norm = module_on_device(layer.final_layer_norm, device)\n        self.final_norm.eps = self.attention_norm.eps = 1e-12"),
    ("GELU", "tanh GELU", "model/block.py", "F.gelu(self.fc1(normed))", 'F.gelu(self.fc1(normed), approximate="tanh")'),
    ("softmax", "softmax in half precision", "model/attention.py", "attended = F.scaled_dot_product_attention(*one, scale=softmax_scale)", "q1, k1, v1 = one\n        attended = torch.softmax((q1 @ k1.transpose(-1, -2) * (softmax_scale or q1.shape[-1] ** -0.5)).half(), -1).to(v1.dtype) @ v1"),
    ("padding", "padded with cls", "model/padded.py", "max(lengths[i] for i in batch)), padding_idx)", "max(lengths[i] for i in batch)), 0)"),
    ("padding", "padding attended to", "model/esm2.py", "key_mask = ~padding_mask", "key_mask = (~padding_mask | True)"),
    ("padding", "mask ratio counts padding", "model/esm2.py", "masked / (~padding_mask).sum(-1)", "masked / padding_mask.shape[-1]"),
    ("padding", "pad rows not zeroed", "model/esm2.py", "x.masked_fill(padding_mask[..., None], 0.0)", "x"),
    ("padding", "rows of a batch in another order", "model/padded.py", "= padded[row, : lengths[i]]", "= padded[-1 - row, : lengths[i]]"),
    ("mean", "mean with cls and eos", "outputs/table.py", "lambda rows: rows[1:-1].mean(0)", "lambda rows: rows.mean(0)"),
    ("mean", "mean without the last residue", "outputs/table.py", "lambda rows: rows[1:-1].mean(0)", "lambda rows: rows[1:-2].mean(0)"),
    ("std, eos", "std of a sample, not of the population", "outputs/table.py", "std(0, correction=0)", "std(0)"),
    ("std, eos", "std with cls", "outputs/table.py", "lambda rows: rows[1:-1].std(0", "lambda rows: rows[:-1].std(0"),
    ("std, eos", "last residue in place of eos", "outputs/table.py", 'Pooling("eos", lambda rows: rows[-1]', 'Pooling("eos", lambda rows: rows[-2]'),
    ("no truncation", "sequences cut at 1,022", "sequences/tokens.py", "    codes = np.frombuffer(", "    sequence = sequence[:1022]\n    codes = np.frombuffer("),
    ("head dims", "head dim fixed to 64", "model/block.py", "attention.num_heads, attention.head_dim, activation_dtype(dtype)", "attention.num_heads * attention.head_dim // 64 or 1, min(64, attention.num_heads * attention.head_dim), activation_dtype(dtype)"),
    ("loading", "pickles executed", "checkpoints/pickles.py", "weights_only=True", "weights_only=False"),
    ("loading", "prefixes kept", "checkpoints/names.py", r'r"^encoder\.(sentence_encoder\.)?"', r'r"^encoder\.(sentence_encoder\.)"'),
    ("loading", "missing tensors pass", "checkpoints/loading.py", "missing = expected.keys() - state.keys()", "missing = set()"),
    ("loading", "embedding kept where the head differs", "checkpoints/pt_files.py", 'state["embed_tokens.weight"] = state.setdefault("lm_head.weight", state["embed_tokens.weight"])', 'state["lm_head.weight"] = state["embed_tokens.weight"]'),
    ("loading", "absent LM head gives values", "checkpoints/loading.py", "torch.full(expected[name].shape, torch.nan)", "torch.zeros(expected[name].shape)"),
    ("Hugging Face", "query and key mixed up", "checkpoints/names.py", '"attention.self.query": "self_attn.q_proj"', '"attention.self.query": "self_attn.k_proj"'),
    ("Hugging Face", "norms mixed up", "checkpoints/names.py", '"attention.LayerNorm": "self_attn_layer_norm",', '"attention.LayerNorm": "final_layer_norm",'),
    ("Hugging Face", "frequencies of the file ignored", "checkpoints/hugging_face.py", "missing = [name for name in frequency_names(state) if name not in state]", "missing = frequency_names(state)"),
    ("Hugging Face", "eps of config.json ignored", "checkpoints/loading.py", "module.eps = shape.layer_norm_eps", "pass"),
    ("Hugging Face", "absent eps taken for fair-esm's", "checkpoints/folders.py", 'config.get("layer_norm_eps", 1e-12)', 'config.get("layer_norm_eps", 1e-5)'),
    ("Hugging Face", "absent token_dropout taken for true", "checkpoints/folders.py", 'config.get("token_dropout", False)', 'config.get("token_dropout", True)'),
    ("Hugging Face", "order of tokens ignored", "checkpoints/hugging_face.py", "select_rows(folder, state, config.token_rows)", "select_rows(folder, state, None)"),
    ("Hugging Face", "LM head not in the order of tokens", "checkpoints/tensors.py", '_OF_TOKENS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")', '_OF_TOKENS = ("embed_tokens.weight",)'),
    ("Hugging Face", "rope_theta ignored", "checkpoints/hugging_face.py", "(config.rope_theta ** (", "(10000.0 ** ("),
    ("Hugging Face", "vocabulary not in the digest", "checkpoints/folders.py", "for path in (vocabulary, weights.index) if path", "for path in (weights.index,) if path"),
    ("Hugging Face", "files beside the index read", "checkpoints/folders.py", "            return WeightFiles(files, index)", '            return WeightFiles(sorted(folder.glob("*.safetensors")), index)'),
    ("Hugging Face", "one of several files taken", "checkpoints/folders.py", "    if len(found) == 1:", "    if found:"),
    ("Hugging Face", "head not asked for", "checkpoints/heads.py", "if included(name).head in absent_heads(model):", "if False:"),
    ("adapter", "scale left out", "checkpoints/adapters.py", "scale * (up.float()", "1.0 * (up.float()"),
    ("adapter", "rslora ignored", "checkpoints/adapters.py", 'if config.get("use_rslora")', "if False"),
    ("digest", "identity not compared", "checkpoints/digest.py", "if (one.path, one.identity) == (path, identity):", "if one.path == path:"),
    ("digest", "path not compared", "checkpoints/digest.py", "if (one.path, one.identity) == (path, identity):", "if one.identity == identity:"),
    ("digest", "known one not used", "checkpoints/digest.py", "    for one in known:", "    for one in ():"),
    ("digest", "identity of after the hashing", "checkpoints/digest.py", "return CheckpointDigest(path, identity, checkpoint_sha256(checkpoint))", "digest = checkpoint_sha256(checkpoint)\n    return CheckpointDigest(path, [file_identity(file) for file in files], digest)"),
    ("digest", "not recorded by jobs", "embedding/statistics.py", '        "checkpoint": embedder.checkpoint._asdict(),\n', ""),
    ("digest", "change of the inode not in the identity", "system/files.py", "s.st_mtime_ns, s.st_ctime_ns]", "s.st_mtime_ns, 0]"),
    ("digest", "a change while it is loaded not noticed", "embedding/embedder.py", "        require_unchanged(Path(options.model), self.checkpoint)\n", ""),
    ("digest", "sha256 of a job that read another file", "planning/stages.py", " if read == known else None", ""),
    ("loading", "weights on a CPU stay in the file", "checkpoints/hugging_face.py", "return tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()}", "return tensors"),
    ("malformed", "layers not counted before they are built", "checkpoints/shape.py", "if found != list(range(shape.num_layers)):", "if False:"),
    ("malformed", "any number passes", "checkpoints/shape.py", "not 1 <= value <= largest", "False"),
    ("malformed", "odd width of heads", "checkpoints/shape.py", "if shape.positions is None and width % 2:", "if False:"),
    ("malformed", "pickles inflated whatever their size", "checkpoints/headers.py", "if compressed and record.file_size > MAX_PICKLE_BYTES:", "if False:"),
    ("own way in", "eps ignored by the reference", "validation/reference_folder.py", 'module.eps = config.get("layer_norm_eps", 1e-12)', "pass"),
    ("own way in", "token_dropout ignored by the reference", "validation/reference_folder.py", 'bool(config.get("token_dropout", False))', "True"),
    ("own way in", "order of tokens ignored by the reference", "validation/reference_folder.py", "(vocabulary or tokens).index(token)", "tokens.index(token)"),
    ("table by length", "rotary tables kept by length", "model/esm2.py", "        angles = positions[:, None]", "        if hasattr(ESM2WithFlashAttention, '_kept') and len(ESM2WithFlashAttention._kept) == len(positions) and ESM2WithFlashAttention._dim == len(self.inv_freq):\n            angles = ESM2WithFlashAttention._kept\n            return torch.complex(angles.cos(), angles.sin())\n        ESM2WithFlashAttention._kept, ESM2WithFlashAttention._dim = positions[:, None].float() * self.inv_freq, len(self.inv_freq)\n        angles = positions[:, None]"),
    ("neighbours", "attention over the whole pack", "model/attention.py", "    bounds = cu_seqlens.tolist()", "    bounds = [0, int(cu_seqlens[-1])]"),
    ("shape", "packs not filled up", "embedding/packing.py", "filler_lengths(max(budget - real - before, 0))", "[]"),
    ("resume", "rows written in pack order", "embedding/embedder.py", "result.columns[name][pack.indices] = vectors", "result.columns[name][sorted(pack.indices)] = vectors"),
    ("resume", "earlier results of other settings reused", "embedding/reuse.py", "differing = differences(self.settings, schema_settings(file.schema_arrow, origin.sample, path))", "differing = []"),
    ("resume", "earlier results not checked", "embedding/reuse.py", "row_checksums(digests, columns) != checksums)", "checksums != checksums)"),
    ("earlier residues", "of other settings", "embedding/earlier_residues.py", "differing = differences(self._settings, file_settings(file, path, self._kind))", "differing = []"),
    ("earlier residues", "of another feature", "embedding/earlier_residues.py", "if found != feature:", "if False:"),
    ("earlier residues", "not checked", "embedding/earlier_residues.py", "if problem := self._checks[feature].problem(dataset, digest, length):", "if problem := None:"),
    ("earlier residues", "of another sequence", "embedding/earlier_residues.py", " or dataset.attrs.get(DIGEST) != digest:", ":"),
    ("earlier residues", "sequences without all their residues taken", "embedding/reuse.py", "if copied(x, names[hit], lengths[self.place[x]])}", "if copied(x, names[hit], lengths[self.place[x]]) or True}"),
    ("earlier residues", "this run's links taken", "embedding/earlier_residues.py", "return None if self._is_own and is_linked else dataset", "return dataset"),
    ("earlier residues", "names of the first row group", "embedding/reuse.py", "num_rows for i in range(group))", "num_rows for i in range(0))"),
    ("earlier residues", "damage of this run's files stops the job", "embedding/reuse.py", "        except EmbeddingFileError as error:\n", "        except ZeroDivisionError as error:\n"),
    ("earlier residues", "values of residues under the place among the new ones", "embedding/attempts.py", "replace(self.residues, sequences=some) if self.residues else None", "self.residues"),
    ("earlier residues", "copied with the id of another record", "store/residues.py", "target[name].attrs.pop(ORIGINAL_ID, None)", "pass"),
    ("residues", "copied without the id", "store/residues.py", "    if original_id is not None:", "    if False:"),
    ("resume", "earlier results of the first rows", "embedding/reuse.py", "matrix[hits] for name", "matrix[: len(hits)] for name"),
    ("resume", "chunk rows not checked when merged", "store/embeddings.py", "np.flatnonzero(seen != self.checksums[rows])", "np.flatnonzero(seen != seen)"),
    ("resume", "chunk rows of other sequences merged", "store/merge.py", 'np.flatnonzero(digests != group["digest"].to_numpy(dtype=str))', "np.flatnonzero(digests != digests)"),
    ("not finite", "another sequence recomputed", "embedding/embedder.py", "result.recomputed += [pack.indices[place] for", "result.recomputed += [place for"),
    ("not finite", "values kept where fp32 has them", "embedding/embedder.py", "result.columns[column][index] = matrix[0]", "pass"),
    ("threads", "rotation cut by threads", "kernels/torch_ops.py", "UNCUT_NUMBERS = 2**14", "UNCUT_NUMBERS = 2**40"),
    ("kernels", "norm without its last column", "kernels/triton_ops.py", "inside = column < WIDTH\n    mask = (row < rows)", "inside = column < WIDTH - 1\n    mask = (row < rows)"),
    ("kernels", "keys of the next sequence", "kernels/triton_attention.py", "scores = tl.where((key < length)[None, :], tl.dot(q, k.T), -float(\"inf\"))", "scores = tl.dot(q, k.T)"),
    ("kernels", "k turned by the angle of another pair", "kernels/triton_ops.py", "2 * (pair % HALF)", "2 * (pair // 2 % HALF)"),
    ("kernels", "mean with eos", "kernels/triton_ops.py", "mask = (row < end - 1)[:, None] & inside[None, :]\n        place", "mask = (row < end)[:, None] & inside[None, :]\n        place"),
    ("kernels", "max of what is masked too", "kernels/triton_ops.py", "tl.max(tl.where(mask, x, -float(\"inf\")), 0)", "tl.max(x, 0)"),
    ("kernels", "std of what is masked too", "kernels/triton_ops.py", "tl.where(mask, x - mean[None, :], 0.0)", "x - mean[None, :]"),
    ("kernels", "last residue in place of eos", "kernels/triton_ops.py", "x_ptr + (end - 1) * WIDTH + column", "x_ptr + (end - 2) * WIDTH + column"),
    ("kernels", "values that are not finite in cls pass", "kernels/triton_ops.py", "tl.abs(total + bos + eos)", "tl.abs(total + eos)"),
    ("kernels", "sums of the softmax not corrected", "kernels/triton_attention.py", "v, sums * correction[:, None])", "v, sums)"),
    ("kernels", "contacts: cls counted in the row sums", "kernels/triton_contacts.py", "is_residue = (key > 0) & (key < length - 1)", "is_residue = key < length - 1"),
    ("kernels", "contacts: eos counted in the column sums", "kernels/triton_contacts.py", "is_residue = (query > 0) & (query < length - 1)", "is_residue = (query > 0) & (query < length)"),
    ("kernels", "contacts: maps not made symmetric", "kernels/triton_contacts.py", "shares += tl.exp2(", "shares = 2 * tl.exp2("),
    ("kernels", "contacts: keys of the next sequence", "kernels/triton_contacts.py", "scores = tl.where((key < length)[None, :], tl.dot(q, k.T) * scale, -float(\"inf\"))", "scores = tl.dot(q, k.T) * scale"),
    ("kernels", "contacts: one weight for all heads", "kernels/triton_contacts.py", "tl.load(weights_ptr + head) * shares", "tl.load(weights_ptr) * shares"),
    ("kernels", "contacts: no correction for the average product", "kernels/triton_contacts.py", "tl.exp(product - sums", "tl.exp(0 - sums"),
    ("kernels", "contacts: no bias", "kernels/triton_contacts.py", "sums - tl.load(bias_ptr))", "sums)"),
    ("kernels", "contacts: the lower half empty", "kernels/triton_contacts.py", "    tl.store(ptr + column[None, :] * residues + row[:, None], contacts, mask=upper)\n", ""),
    ("kernels", "contacts: sum over the residues without the first", "kernels/triton_contacts.py", "tl.range(start + 1, end - 1, TOKENS)", "tl.range(start + 2, end - 1, TOKENS)"),
    ("kernels", "scale of fp8 by the largest, not the furthest from 0", "kernels/triton_ops.py", "tl.max(tl.abs(x), 1)", "tl.max(x, 1)"),
    ("contacts", "maps cut at the wrong end", "model/contacts.py", "[:, 1:-1, 1:-1]", "[:, :-2, :-2]"),
    ("contacts", "maps not made symmetric", "model/contacts.py", "maps = maps + maps.mT", "maps = 2 * maps"),
    ("contacts", "no correction for the average product", "model/contacts.py", " - (rows * (weight / rows.sum(-1))[:, None]).mT @ rows", ""),
    ("contacts", "weights of the layer before", "model/contacts.py", "self._weights[layer])", "self._weights[layer - 1])"),
    ("contacts", "layers and heads mixed up", "model/contacts.py", "regression.weight.view(num_layers, -1)", "regression.weight.view(-1, num_layers).T"),
    ("contacts", "weights of the first heads for all", "model/contacts.py", "weights[part]", "weights[: len(some)]"),
    ("contacts", "no bias", "model/contacts.py", "torch.sigmoid(total + self._bias)", "torch.sigmoid(total)"),
    ("contacts", "no scale", "model/contacts.py", " * head_dim**-0.5", ""),
    ("contacts", "maps in half precision", "model/contacts.py", "x.transpose(0, 1).float()", "x.transpose(0, 1)"),
    ("contacts", "of the wanted layers only", "model/esm2.py", "if to_the_end else layers)", "if need_logits else layers)"),
    ("contacts", "of the neighbour in the pack", "embedding/results.py", "self.pack.first + place", "self.pack.first + place - 1"),
    ("contacts", "a head not in the settings", "embedding/embedder.py", '**({"contact_head_sha256": self._contact_head} if self._contact_head else {})', "**{}"),
    ("logits", "without the weights of the final norm", "model/esm2.py", "            result[\"logits\"] = self.lm_head(rows.hidden[self.num_layers])", "            norm = self.emb_layer_norm_after\n            result[\"logits\"] = self.lm_head((rows.hidden[self.num_layers] - norm.bias) / norm.weight)"),
    ("logits", "one row off", "outputs/layouts.py", "return of_pack[rows]", "return of_pack.roll(1, 0)[rows]"),
    ("logits", "likelihood of the next token", "outputs/table.py", "gather(1, input_ids[:, None]", "gather(1, input_ids.roll(-1)[:, None]"),
    ("logits", "likelihood with cls and eos", "embedding/embedder.py", 'scalar.per_token(out, input_ids), ["mean"]', 'scalar.per_token(out, input_ids), ["bos"]'),
    ("ESM-1b", "positions run on over the boundary", "model/esm2.py", "self._mask_ratio(pack.input_ids, layout), positions)", "self._mask_ratio(pack.input_ids, layout), torch.arange(len(positions)) % 1024)"),
    ("ESM-1b", "positions from the padding's", "checkpoints/weights.py", "[base_model.padding_idx + 1 :]", "[base_model.padding_idx :]"),
    ("ESM-1b", "no norm before the blocks", "model/esm2.py", "return x if self.emb_layer_norm_before is None else self.emb_layer_norm_before(x)", "return x"),
    ("ESM-1b", "no token dropout", "checkpoints/weights.py", 'base_model.args if hasattr(base_model, "args") else base_model', "base_model"),
    ("ESM-1b", "mask tokens without a position", "model/esm2.py", "x += F.embedding(positions, self.position_embedding)", "x += F.embedding(positions, self.position_embedding) * tokens.ne(self.mask_idx)[..., None]"),
    ("ESM-1b", "positions scaled as tokens are", "model/esm2.py", "x += F.embedding(positions, self.position_embedding)", "x += F.embedding(positions, self.position_embedding) / (1 - mask_ratio)[..., None]"),
    ("windows", "last window missing", "sequences/windows.py", "step), residues - self.size]", "step)]"),
    ("windows", "last window hangs over the end", "sequences/windows.py", "[*range(0, residues - self.size, step), residues - self.size]", "[*range(0, residues - self.overlap, step)]"),
    ("windows", "later windows win", "embedding/long_proteins.py", "total[rows] += part[1:-1]\n        seen[rows] += 1", "total[rows] = part[1:-1]\n        seen[rows] = 1"),
    ("windows", "sums where they overlap", "embedding/long_proteins.py", "total[1:-1] /= seen[1:-1]", "pass"),
    ("windows", "cls of the last", "embedding/long_proteins.py", "= parts[0][0], parts[-1][-1]", "= parts[-1][0], parts[-1][-1]"),
    ("windows", "eos of the first", "embedding/long_proteins.py", "= parts[0][0], parts[-1][-1]", "= parts[0][0], parts[0][-1]"),
    ("windows", "joined backwards", "embedding/long_proteins.py", "for number in sorted(self.waiting.pop(owner))", "for number in sorted(self.waiting.pop(owner), reverse=True)"),
    ("windows", "joined as they come", "embedding/long_proteins.py", "for number in sorted(self.waiting.pop(owner))", "for number in self.waiting.pop(owner)"),
    ("windows", "short proteins get the first rows", "embedding/long_proteins.py", "= rows[whole]", "= rows[: len(whole)]"),
    ("streamed weights", "the next layer not copied ahead", "model/layers.py", "(layer, (layer + 1) % count)", "(layer,)"),
    ("streamed weights", "both layers in one slot", "model/layers.py", "            self._slots.rotate(-1)\n", ""),
    ("streamed weights", "the layer that was there before", "model/layers.py", "            slot.memory.copy_(self._host[layer], non_blocking=True)", "            slot.memory.copy_(self._host[layer - 1], non_blocking=True)"),
    ("streamed weights", "what could not be read taken for read", "model/layers.py", "            slot.layer = None\n            raise", "            raise"),
    ("streamed weights", "a pack with the state of the one before", "model/esm2.py", "self._run_layer(rows, block, index, index in layers)", "self._run_layer(packs[0], block, index, index in layers)"),
    ("streamed weights", "a file that is changed meanwhile not noticed", "embedding/embedder.py", '        if model.weights == "file":', '        if model.weights == "nowhere":'),
    ("streamed weights", "a setting of the values", "embedding/embedder.py", '            "bits": BITS,', '            "bits": BITS,\n            "weights": self.weights,'),
    ("streamed weights", "a change of where they are reruns the stages", "embedding/options.py", 'OF_NO_VALUE = ("weights",)', "OF_NO_VALUE = ()"),
    ("streamed weights", "a sweep without room for its pack", "embedding/memory.py", " - head - tokens_per_pack * self._token_bytes", " - head"),
    ("streamed weights", "the budget halved before the sweep", "embedding/attempts.py", "    if sweep >= 2 * budget:", "    if sweep < 0:"),
    ("streamed weights", "more than the host has", "embedding/memory.py", "self.weight_bytes + HOST_RESERVE <= there", "HOST_RESERVE <= there"),
    ("streamed weights", "none asked for from the scheduler", "planning/resources.py", "STREAMED_MB + streamed * shape.parameters / MB", "STREAMED_MB"),
    ("windows", "recorded and not used", "embedding/embedder.py", "pieces = [cut(one, self.options.windows) for one in tokens]", "pieces = [[one] for one in tokens]"),
    ("windows", "not in the settings", "embedding/embedder.py", "asdict(self.options.windows) if self.options.windows else None", "None"),
    ("residues", "cls kept and the last one dropped", "outputs/layouts.py", "[super(LayerRows, self).stored(rows) for rows", "[rows[:-2].numpy(force=True) for rows"),
    ("residues", "logits of cls kept and of the last dropped", "outputs/layouts.py", "return of_sequence[1:-1].numpy", "return of_sequence[:-2].numpy"),
    ("residues", "layers in the wrong order", "outputs/layouts.py", "for rows in of_sequence.values()]", "for rows in reversed(of_sequence.values())]"),
    ("residues", "infinite values in float16", "store/residues.py", "if values.dtype == np.float16 and not _is_finite(values):", "if False:"),
    ("residues", "infinite values taken for large ones", "store/residues.py", "without_sign.max() < 0xF800", "without_sign.max() < 0xFFFF"),
    ("residues", "negative infinity taken for a number", "store/residues.py", "values.view(np.uint16) << 1", "values.view(np.int16)"),
    ("residues", "all layers in the place of the first", "store/residues.py", "offset, rest = offset + written, rest[written:]", "rest = rest[written:]"),
    ("residues", "a pack cut one row early", "outputs/layouts.py", "rows.start + 1 : rows.stop - 1", "rows.start : rows.stop - 2"),
    ("residues", "the first layer for all", "embedding/host_copies.py", "copy.copy_(tensor.to(dtype)", "copy.copy_(tensors[0].to(dtype)"),
    ("residues", "contacts of the sequence before", "outputs/layouts.py", "return on_host[place][0]", "return on_host[place - 1][0]"),
    ("residues", "checksum of other values", "store/residues.py", "return residue_checksum(digest, values)\n", "return residue_checksum(digest, values[..., :1])\n"),
    ("residues", "times in the files", "store/hdf5.py", "set_obj_track_times(False)", "set_obj_track_times(True)"),
    ("residues", "an error of a thread is lost", "store/residues.py", "np.array(oldest.written.result(), np.uint64)", "np.array(0 if oldest.written.exception() else oldest.written.result(), np.uint64)"),
    ("repeat", "packed as the first time", "embedding/repeat.py", "packs = partial(moved_packs, places=_places(embedder, tokens, first, order), rng=rng)", "packs = __import__('packed_esm.embedding.packing').embedding.packing.iterate_packs"),
    ("repeat", "never filler in front", "embedding/packing.py", "int(rng.choice(elsewhere)) if len(elsewhere) else len(free)", "0"),
    ("repeat", "the same place by chance", "embedding/packing.py", "elsewhere = np.setdiff1d(free, places[indices] - starts[:-1])", "elsewhere = free"),
    ("repeat", "fewer than the share", "embedding/repeat.py", "math.ceil(round(share * count, 6))", "math.floor(share * count)"),
    ("repeat", "always the first sequences", "embedding/repeat.py", "return np.sort(rng.choice(count, number, replace=False))", "return np.arange(number)"),
    ("repeat", "compared with other sequences", "embedding/repeat.py", "_bits_differ(self.first.columns[name][self.order], matrix)", "_bits_differ(matrix, matrix)"),
    ("repeat", "residues not compared", "embedding/repeat.py", "(compare_residues, residues.dtypes) if residues else (None, None)", "(None, None)"),
    ("repeat", "checksums of residues not compared", "embedding/kept_residues.py", "residue_checksum(digest, x) != self.writer.checksum(f, digest)", "not digest"),
    ("repeat", "values that are not finite the second time pass", "embedding/repeat.py", "differ[self.again.recomputed] = True", "pass"),
    ("repeat", "a retry hides it", "embedding/repeat.py", "if self.evidence.exists():", "if False:"),
    ("repeat", "what was not finite is repeated too", "embedding/repeat.py", "np.setdiff1d(np.arange(len(tokens)), first.recomputed)", "np.arange(len(tokens))"),
    ("repeat", "rows pooled from the filler in front", "embedding/packing.py", "return self.cu_seqlens[self.first : self.first + len(self.indices) + 1]", "return self.cu_seqlens[: len(self.indices) + 1]"),
    ("residues", "kept after an out-of-memory", "store/residues.py", "            self._opened.__exit__(_Restart, restart, None)\n            self._open()\n", "            pass\n"),
    ("residues", "under another digest", "embedding/kept_residues.py", "self.writer.write(self.sequences.digests[index],", "self.writer.write(self.sequences.digests[index - 1],"),
    ("residues", "linked to another digest", "store/merge_residues.py", "ExternalLink(home_from_here, record.digest)", "ExternalLink(home_from_here, records.digest.iloc[0])"),
    ("merge_residues", "links from the folder as it is named", "store/merge_residues.py", "os.path.relpath(home, out.parent.resolve())", "os.path.relpath(chunk_paths[number], out.parent)"),
    ("residues", "of another length taken", "store/residue_checks.py", " or dataset.shape[-2] != length", ""),
    ("residues", "of another sequence taken", "store/residue_checks.py", "if (found := attributes.get(DIGEST)) != digest:", "if not (found := attributes.get(DIGEST)):"),
    ("residues", "of other settings linked", "store/residue_checks.py", "if differing := self._differences(dataset.file):", "if differing := []:"),
    ("residues", "checksums not checked", "store/residue_checks.py", "return None if checksum == attributes[CHECKSUM] else", "return None if checksum else"),
    ("residues", "datasets without a checksum pass", "store/residue_checks.py", 'return "it has no checksum"', "return None"),
    ("residues", "checksum not bound to the sequence", "store/residues.py", 'f"{digest} {values.shape}', 'f"{values.shape}'),
    ("residues", "checksum of the first block only", "store/residues.py", "        state.update(np.ascontiguousarray(values[place]))\n", "        state.update(np.ascontiguousarray(values[place]))\n        break\n"),
    ("residues", "not checked when merged", "store/merge_residues.py", "check.check(chunk,", "print(chunk,"),
    ("residues", "not checked when validated", "validation/run.py", "        check_residues(path, sample, rows", "        (path, sample, rows"),
    ("residues", "chunks of other layers mixed", "store/settings.py", 'MAY_DIFFER = {"tokens_per_pack"}', 'MAY_DIFFER = {"tokens_per_pack", "layers"}'),
    ("names", "a slash passes", "store/names.py", 'if text.isprintable() and "/" not in text', "if text.isprintable()"),
    ("names", "an accession twice", "store/names.py", "if accession and accession not in used", "if accession"),
    ("names", "an accession that is another record's id", "store/names.py", "    used = set(ids)", "    used = set()"),
    ("names", "an escape of the header's own", "store/names.py", '_LOOKS_ESCAPED.sub("%25", text)', "text"),
    ("names", "longer than a file system takes", "store/names.py", "NAME_BYTES = 255", "NAME_BYTES = 256"),
    ("names", "files that differ in case only", "store/names.py", 'unicodedata.normalize("NFC", name).casefold()', 'unicodedata.normalize("NFC", name)'),
    ("exports", "ids of the first batch for all", "store/export.py", "Batch(slice(start, start + len(table))", "Batch(slice(0, len(table))"),
    ("exports", "rows not checked", "store/export.py", "in checked_batches(embeddings, sample.rows):", 'in __import__("packed_esm.store.embeddings").store.embeddings.sample_batches(embeddings):'),
    ("exports", "last batch lost", "store/export.py", "for write in writers:", "for write in writers if start + len(table) < len(sample.rows) else []:"),
    ("exports", "scalars of each batch in the first rows", "store/formats.py", "obs.iloc[batch.rows, ", "obs.iloc[: len(values), "),
    ("exports", "settings that are not set written as null", "store/formats.py", "if one is not None}", "}"),
    ("exports", "sequences not checked by their digests", "sequences/chunk_sequences.py", "if refget_digest(record.sequence) != record.id:", "if False:"),
    ("exports", "a sequence that is not there passed over", "sequences/chunk_sequences.py", "if missing:", "if False:"),
    ("exports", "biotrainer's key without the length", "store/formats.py", 'f"{sequence}_{len(sequence)}"', 'f"{sequence}"'),
    ("exports", "masks left in scikit-bio's sequences", "store/formats.py", '.replace(MASKED, "X")', ""),
    ("exports", "ends of sequences one too early", "store/formats.py", 'file["idptr"], file["embedding_ptr"] = ends[1:]', 'file["idptr"], file["embedding_ptr"] = ends[:-1]'),
    ("exports", "a column of the user's in place of ours", "store/formats.py", 'while name in columns or name in ("id", "_index"):', "while False:"),
    ("exports", "metadata of another sample's rows", "store/export.py", "metadata.values(column)[chosen]", "metadata.values(column)[: chosen.sum()][::-1]"),
    ("exports", "texts of pandas' own type", "store/formats.py", "pd.Series(values, index, values.dtype)", 'pd.Series(values, index, "string" if values.dtype == object else values.dtype)'),
    ("exports", "layers mixed up", "embedding/pt_files.py", "zip(layers, values if", "zip(layers[::-1], values if"),
    ("exports", "residues of another sequence", "embedding/pt_files.py", "if found != digest:", "if found is None:"),
    ("translation", "other strand not reversed", "sequences/translation.py", "codons[1, index][::-1])", "codons[1, index])"),
    ("translation", "other strand not complemented", "sequences/translation.py", "codons[1, index][::-1])", "codons[0, index][::-1])"),
    ("translation", "frames one off", "sequences/translation.py", "strand[first::CODON]", "strand[(first + 1) % CODON :: CODON]"),
    ("translation", "a stop at the end kept", "sequences/translation.py", 'if "*" not in protein and', 'if "*" not in protein[:-1] and'),
    ("translation", "last window lost", "sequences/translation.py", "for i in range(number):", "for i in range(number - 1 or 1):"),
    ("translation", "windows shifted by the remainder", "sequences/translation.py", "min(i, overlap + remainder)", "min(i, remainder)"),
    ("translation", "places counted from 0", "sequences/translation.py", "nt={start + 1}-{end}", "nt={start}-{end}"),
    ("chunks", "dealt by number, not by work", "sequences/chunking.py", "load + estimated_flops(lengths[index], embed_dim)", "load + 1"),
    ("chunks", "rows counted over all chunks", "sequences/chunking.py", "places[digest] = Place(chunk, row)", "places[digest] = Place(chunk, index)"),
    ("chunks", "length as written, not as embedded", "sequences/records.py", "length=residue_count(kept.sequence)", "length=len(record.sequence)"),
    ("manifest", "checksums not checked", "sequences/manifest.py", "if _checksums(table) != written:", "if False:"),
    ("manifest", "checksum of the last column only", "sequences/manifest.py", "zlib.crc32(_bytes(column), value)", "zlib.crc32(_bytes(column))"),
    ("manifest", "checksum of the first rows only", "sequences/manifest.py", "for first in range(start, end, BATCH_ROWS):", "for first in [start]:"),
    ("conda", "submitted jobs judged by the machine that submits", "planning/conda.py", "elif submits_jobs:", "elif False:"),
    ("conda", "hidden GPUs counted", "planning/conda.py", 'in ("", "-1", "NoDevFiles")', "in ()"),
    ("conda", "control files of the driver taken for GPUs", "planning/conda.py", 'dev.glob("nvidia[0-9]*")', 'dev.glob("nvidia*")'),
    ("conda", "nvidia-smi not asked", "planning/conda.py", " or bool(visible_gpus())", ""),
    ("conda", "an AMD GPU counted as none", "planning/conda.py", '(dev / "kfd").exists()', "False"),
    ("conda", "flash-attn without its environment", "planning/conda.py", 'settings["attention"] == "flash-attn"', "False"),
    ("gpu_lease", "locks of other users not asked for", "system/gpu_lease.py", "for path, mode in ((own, 0o400), (shared, 0o444)):", "for path, mode in ((own, 0o400),):"),
    ("gpu_lease", "links followed", "system/gpu_lease.py", "os.O_CLOEXEC | os.O_NOFOLLOW |", "os.O_CLOEXEC |"),
    ("gpu_lease", "anything is a lock file", "system/gpu_lease.py", "if not stat.S_ISREG(", "if False and not stat.S_ISREG("),
    ("gpu_lease", "no wait for other jobs", "system/gpu_lease.py", "if time.monotonic() > end:", "if True:"),
    ("files", "leftovers of the own number kept", "system/files.py", "return token != TOKEN", "return False"),
    ("files", "errors of the system taken for damage", "system/files.py", "if isinstance(error, OSError) and error.errno is not None:", "if False:"),
    ("files", "mistakes of our own taken for damage", "system/files.py", "except self.raised as error:", "except Exception as error:"),
    ("embeddings", "columns of any type taken", "store/embeddings.py", "if not _is_right_type(field):", "if False:"),
    ("embeddings", "missing values taken", "system/arrow.py", "if any(part.null_count for part in parts):", "if False:"),
    ("download", "size asked for where it is not said", "checkpoints/download.py", "if size is not None and received != size:", "if received != (size or 0):"),
    ("manifest", "other columns taken", "sequences/manifest.py", "if not schema.equals(SCHEMA):", "if False:"),
    ("JSON", "checksums not checked", "system/files.py", 'or content.pop("checksum", None) != _json_checksum(content):', 'or content.pop("checksum", None) is None:'),
    ("metadata", "accessions not looked up", "sequences/metadata.py", "np.where(places < 0, _places(_with_accessions(theirs), _with_accessions(ours)), places)", "places"),
    ("metadata", "metadata of nobody taken", "sequences/metadata.py", "(found.places < 0).all():\n        raise", "False:\n        raise"),
    ("metadata", "row of another taken where several match", "sequences/metadata.py", "rows.duplicated(keep=False)", "rows.duplicated()"),
    ("metadata", "no warning where some have no row", "sequences/metadata.py", "logging.INFO if (found.places >= 0).all() else logging.WARNING", "logging.INFO"),
    ("metadata", "the first of NAMES not taken", "sequences/metadata.py", "next(name for name in NAMES if name in rows)", "next(name for name in reversed(NAMES) if name in rows)"),
    ("accessions", "GenInfo numbers not passed over", "sequences/accessions.py", r'_NCBI = re.compile(r"(?:gi\|[0-9]+\|)?', r'_NCBI = re.compile(r"'),
    ("accessions", "a chain lost", "sequences/accessions.py", '"_".join(filter(None, match.groups()))', "match[1]"),
    ("merge", "accessions of the sample not checked", "store/integrity.py", '("id", "digest", "length", "accession")', '("id", "digest", "length")'),
    ("report", "a legend without points", "report/points.py", "if self.views else []", "if True else []"),
    ("report", "columns of other proteins where some are drawn", "report/explorer.py", "column.of(points.rows)", "column"),
    ("report", "data that a header can end", "report/explorer.py", '.replace("<", "\\\\u003c")', ""),
    ("report", "any script allowed", "report/page.py", "script-src {_source(script)}", "script-src 'unsafe-inline'"),
    ("report", "a colour too faint for a white page", "report/figures.py", '"#416888"', '"#a0b4c4"'),
    ("report", "a number without contrast on a dark page", "report/figures.py", "np.linspace(DARKEST, 1, steps)", "np.linspace(0, 1, steps)"),
    ("report", "more points than memory", "report/points.py", "min(MAX_POINTS, MAX_VALUES // width)", "MAX_POINTS"),
    ("report", "umap imported for few", "report/projection.py", "if len(first) < MIN_POINTS:", "_umap()\n    if len(first) < MIN_POINTS:"),
    ("nearest", "a protein is its own neighbour", "report/neighbours.py", "        products[np.arange(len(here)), here] = -np.inf\n", ""),
    ("nearest", "products of vectors of any length", "report/neighbours.py", "matrix / np.maximum(", "matrix + 0 * np.maximum("),
    ("nearest", "the nearest in any order", "report/neighbours.py", "np.take_along_axis(best, order, axis=1)", "best"),
    ("report", "page without the versions of the workflow", "report/page.py", "package_versions() | dict(options.workflow_versions)", "package_versions()"),
    ("record", "times taken for content", "planning/record.py", "identity == known[\"identity\"]:", "True:"),
    ("record", "the same size taken for the same content", "planning/record.py", "if entry[\"sha256\"] == digest:", "if True:"),
    ("record", "other settings keep the stamp", "planning/record.py", "uuid.uuid4().hex if found else before[\"stamp\"]", "before[\"stamp\"]"),
    ("record", "another checkpoint taken from anywhere", "planning/record.py", "if source.fixed and digest and not same_path:", "if False:"),
    ("record", "files of folders that are expected listed", "planning/record.py", "not paths & {path, *path.parents}", "path not in wanted"),
    ("record", "a dry run writes stamps", "planning/record.py", "path if elsewhere is None else elsewhere / path.name", "path"),
    ("stages", "the number left out", "planning/stages.py", 'common = {"bits": BITS, ', "common = {"),
    ("stages", "proteins of a translation taken for the sheet's", "planning/stages.py", 'return stages | {"chunk": Stage(stages["chunk"].settings)}', "return stages"),
    ("stages", "a dry run writes the record", "planning/stages.py", "    if is_run:\n", "    if True:\n"),
    ("stages", "what was asked for before kept for ever", "planning/stages.py", "    if done:\n", "    if False:\n"),
    ("results", "files of other samples not named", "planning/results.py", "files = self.not_expected()", "files = []"),
    ("results", "chunks' residues kept for ever", "planning/results.py", "for feature in self.features if not self._is_merged())", "for feature in self.features)"),
    ("results", "residues of linked files taken for copies", "planning/results.py", "if not self.has_linked_residues:", "if True:"),
    ("results", "a summary of what was not validated", "planning/summary.py", ".st_mtime > Path(results.validation).stat().st_mtime", ".st_mtime > 1e12"),
    ("tree", "a copy that is there made again", "../rules/tree.py", "    if folder.is_dir():\n        return folder\n", ""),
    ("tree", "a copy made in its place", "../rules/tree.py", 'unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copies))', "unfinished = folder"),
    ("tree", "what a copy that failed has made is left", "../rules/tree.py", "shutil.rmtree(unfinished, ignore_errors=True)", "pass"),
    ("tree", "who comes second fails", "../rules/tree.py", "if not folder.is_dir():  # else", "if True:  # else"),
    ("tree", "another library that was imported stays", "../rules/tree.py", "            del sys.modules[name]", "            pass"),
    ("tree", "the library of a folder comes last", "../rules/tree.py", "sys.path.insert(0, str(folder))", "sys.path.append(str(folder))"),
    ("checkpoint", "jobs wait for a file of the clone", "planning/checkpoint.py", "if self.model == DEMO:", "if False:"),
    ("checkpoint", "no contact head taken for one", "planning/checkpoint.py", "if not has_contact_head(self.path):", "if False:"),
    ("job resources", "sequences that are repeated take no time", "planning/job_resources.py", 'return 1 + self.settings["validation"]["repeat"]', "return 1"),
    ("inputs", "braces taken", "planning/inputs.py", 'if {"{", "}"} & set(path):', "if False:"),
    ("samples", "missing files taken", "planning/samples.py", "(self.made_later and not path.exists())", "not path.exists()"),
    ("samples", "standard input taken", "planning/samples.py", "if not special and (", "if ("),
    ("samples", "two files of one name are one sample", "planning/samples.py", "while unique in used:", "while False:"),
    ("samples", "a sample of two sheets taken once", "planning/samples.py", "if sample in named:", "if False:"),
    ("command", "files and a sheet both taken", "cli/workflow.py", 'if files and "samples" in given:', "if False:"),
    ("command", "files removed while a run is under way", "cli/clean.py", 'if any(Path(".snakemake/locks").glob("*")):', "if False:"),
    ("command", "files removed without a question", "cli/clean.py", "if not (args.yes or _agrees(", "if not (True or _agrees("),
    ("device", "attention by our kernels on ROCm", "model/backends.py", "    if torch.version.hip:", "    if False:"),
    ("device", "our operations on ROCm", "kernels/dispatch.py", "    if torch.version.hip:", "    if False:"),
    ("device", "half precision on mps", "embedding/device.py", 'return "fp16" if device.type == "cuda" else "fp32"', 'return "fp32" if device.type == "cpu" else "fp16"'),
    ("golden", "the same mean, in other bits", "outputs/table.py", 'Pooling("mean", lambda rows: rows[1:-1].mean(0)', 'Pooling("mean", lambda rows: rows[1:-1].sum(0) * (1 / (len(rows) - 2))'),
    ("golden", "the same scale, in other bits", "model/attention.py", "lambda q, k, v: sdpa_attention(q, k", "lambda q, k, v: sdpa_attention(q * (1 + 2**-23), k"),
    ("bits", "0.3.0 of no number", "store/settings.py", 'return {"bits": 1} | {', "return {"),
    ("bits", "0.3.0 with its version", "store/settings.py", 'if "packed_esm" not in settings:', "if True:"),
    ("bits", "the version among the settings", "store/settings.py", 'content = {"settings": settings, ', 'settings = settings | {"version": __version__}\n    content = {"settings": settings, '),
    ("translation", "a file that changed taken", "sequences/fasta.py", "    if file_identity(path) != identity:", "    if False:"),
    ("inputs", "absolute paths kept", "planning/inputs.py", "if folder.is_relative_to(Path.cwd()):", "if False:"),
    ("inputs", "files elsewhere taken for files here", "planning/inputs.py", "folder.is_relative_to(Path.cwd())", "True"),
    ("validator", "validator never fails", "validation/run.py", "    if failures:\n        raise", "    if False:\n        raise"),
    ("validator", "checksums not checked", "store/integrity.py", 'wrong = row_checksums(table["digest"].to_pylist(), columns) != table["checksum"].to_numpy()', "wrong = np.zeros(len(table), dtype=bool)"),
    ("validator", "values that are not numbers pass", "validation/tolerance.py", "else row[name] <= bound):", "else not row[name] > bound):"),
    ("validator", "any contacts pass", "validation/tolerance.py", "if MEASURES[name].may_be_absent and pd.isna(row[name]):", "if MEASURES[name].may_be_absent:"),
    ("validator", "least taken for largest", "validation/tolerance.py", "row[name] >= bound if least", "row[name] <= bound if least"),
    ("validator", "contacts that are not numbers pass", "outputs/measures.py", "if finite else np.inf", "if finite else 0.0"),
    ("validator", "contacts never compared", "validation/comparison.py", "if feature in truth:", "if feature in truth and feature != 'contacts':"),
    ("validator", "contacts ranked by themselves", "outputs/measures.py", "wanted[np.argsort(ours, ", "wanted[np.argsort(wanted, "),
    ("validator", "correlation of a map with itself", "outputs/measures.py", "(ours - ours.mean()) * (wanted", "(wanted - wanted.mean()) * (wanted"),
    ("validator", "neighbours in the sequence counted as contacts", "outputs/measures.py", "np.triu_indices(residues, SEPARATION)", "np.triu_indices(residues, 1)"),
    ("validator", "divergence without the logarithm's sum", "outputs/measures.py", "return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))", "return shifted"),
    ("validator", "std against its own norm", "outputs/table.py", "size if self.may_vanish else None", "None"),
    ("validator", "likelihood against its own size", "outputs/table.py", "max(abs(float(want)), root_mean_square(logits[1:-1]))", "abs(float(want))"),
    ("validator", "anything equals zeros", "outputs/measures.py", "if scale > 0 and np.isfinite(difference) else np.inf", "if scale > 0 and np.isfinite(difference) else 0.0"),
    ("validator", "residues compared with themselves", "outputs/table.py", '{"representations_relative_l2": relative_error(got, want)}', '{"representations_relative_l2": relative_error(got, got)}'),
    ("validator", "likelihood compared with itself", "outputs/table.py", "want = log_softmax(logits)[np.arange(1, len(tokens) - 1), tokens[1:-1]].mean()", "want = got"),
    ("validator", "bits of residues not compared", "validation/comparison.py", 'errors["bit_equal"] = all(', 'errors["bit_equal"] = True or all('),
    ("validator", "bits of the first column only", "validation/comparison.py", "for c in own)", "for c in own[:1])"),
    ("validator", "windows compared with the packed path's", "validation/comparison.py", "truth = _reference(reference, reference_ids[index], embedder)", "truth = out if embedder.options.windows else _reference(reference, reference_ids[index], embedder)"),
    ("validator", "reference of long proteins not in windows", "validation/comparison.py", "    if len(starts) == 1:", "    if True:"),
    ("validator", "FASTA of another run taken", "store/integrity.py", "if sha256(fasta) != sources.get(sample):", "if False:"),
    ("validator", "statistics of another run taken", "store/integrity.py", "if differing := differences(job[\"settings\"], settings | budget):", "if differing := []:"),
    ("validator", "longest protein never chosen", "validation/run.py", "{0, len(unique) - 1, *picks}", "{0, *picks}"),
    ("validator", "reference without a scale in blocks", "validation/reference.py", "module.q_proj(query) * module.scaling", "module.q_proj(query)"),
    ("validator", "last window wins in the reference", "validation/reference.py", "torch.stack(rows).mean(0)", "rows[-1]"),
    ("variants", "positions from 0", "variants/score.py", "{mutation.position - 1 for mutation in some}", "{mutation.position for mutation in some}"),
    ("variants", "the first mutation only", "variants/score.py", "return float(found[rows, columns].astype(np.float64).sum())", "return float(found[rows, columns].astype(np.float64)[0])"),
    ("variants", "wild type not checked", "variants/proteins.py", "if found != mutation.wild_type:", "if False:"),
    ("variants", "beyond the end not checked", "variants/table.py", "if mutation.position > len(residues):", "if False:"),
    ("variants", "mutations not undone", "variants/table.py", "residues[mutation.position - 1] = mutation.wild_type", "pass"),
    ("variants", "wild type minus mutant", "variants/score.py", "sums[np.array(mutants, dtype=np.int64)] - sums[targets.owners]", "sums[targets.owners] - sums[np.array(mutants, dtype=np.int64)]"),
    ("variants", "every position masked", "variants/score.py", "MaskedCopies(embedder, proteins.tokens, proteins.names, positions)", "MaskedCopies(embedder, proteins.tokens, proteins.names, [np.arange(len(one) - 2) for one in proteins.tokens])"),
    ("masked copies", "the residue before", "embedding/masked.py", "copies[np.arange(len(masked)), masked] = MASK", "copies[np.arange(len(masked)), masked - 1] = MASK"),
    ("masked copies", "row of another copy", "embedding/masked.py", "rows = pack.real_cu_seqlens[:-1] + np.concatenate(parts)", "rows = pack.real_cu_seqlens[:-1] + np.concatenate(parts)[::-1]"),
    ("masked copies", "rows as many as there are", "model/esm2.py", "F.pad(rows, (0, -len(rows) % LOGITS_ROWS))", "rows"),
    ("masked copies", "packs over the budget", "embedding/masked.py", "start + room // length)", "start + room // length + 1)"),
    ("masked copies", "of equal windows the later", "sequences/windows.py", "np.searchsorted(limits, 2 * np.arange(residues))", "np.searchsorted(limits, 2 * np.arange(residues), side=\"right\")"),
    ("masked copies", "mean over windows", "outputs/layouts.py", "is_scored = True", "is_scored = False"),
    ("masked copies", "values that are not finite kept", "embedding/masked.py", "rows if np.isfinite(rows).all() else self._exact(index)", "rows"),
    ("masked copies", "repeat without them", "embedding/repeat.py", "        add_masked(MaskedCopies(embedder, repeated, [names[i] for i in order], rng=rng), again, each)\n", "        again.columns = again.columns\n"),
    ("masked copies", "repeat in the same places", "embedding/masked.py", "if self.rng is not None and free > 0 else 0", "if False else 0"),
    ("masked copies", "amino acids in the order of tokens", "outputs/marginals.py", 'for letter in AMINO_ACIDS]', 'for letter in "LAGVSERTIDPKQNFYMHWC"]'),
    ("masked copies", "fair-esm masks nothing", "validation/reference.py", "window[place] = model.mask_idx", "pass"),
    ("masked copies", "a check of no positions", "validation/masked.py", 'errors: dict = {MASKED_MEASURE.name: logits_errors(logits[chosen], want)["logits_kl_max"]}', "errors: dict = {MASKED_MEASURE.name: 0.0}"),
    ("validator", "likelihood of cls and eos in the reference", "outputs/table.py", "log_softmax(logits)[np.arange(1, len(tokens) - 1), tokens[1:-1]]", "log_softmax(logits)[np.arange(len(tokens)), tokens]"),
]  # fmt: skip


def first_failure(output: str) -> str:
    """Return the name of the first test that failed."""
    match = re.search(r"^(?:FAILED|ERROR) (?:tests/unit/)?([^\s\[]+)", output, re.MULTILINE)
    return match.group(1) if match else "(no test named)"


def run_tests(folder: Path, *arguments: str) -> tuple[bool, str]:
    """Run tests in the copy of the tree; return (some failed, the first of them)."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    # No bytecode files: two mutations of one size within one second would share theirs.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, env=environment)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1, first_failure(done.stdout)


def names_of_tests(fact: str, file: str) -> tuple[str, ...]:
    """Return the names of the test files that can notice a mutation."""
    module = Path(file).stem
    return TESTS.get(fact) or TESTS.get(module) or (module,)


def tests_of(fact: str, file: str) -> list[str]:
    """Return the test files that can notice a mutation."""
    names = names_of_tests(fact, file)
    return [str(path.relative_to(ROOT)) for name in names for path in ROOT.glob(f"tests/unit/**/test_{name}.py")]


def run_mutation(folder: Path, fact: str, file: str, old: str, new: str) -> tuple[bool, str]:
    """Apply one mutation in a copy of the tree; return (noticed, by which test)."""
    path = folder / LIBRARY / file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(old, new), encoding="utf-8")
    try:
        return run_tests(folder, *tests_of(fact, file))
    finally:
        path.write_text(original, encoding="utf-8")


def check_texts(mutations: list[tuple]) -> None:
    """Exit if the text of a mutation does not occur exactly once in its file."""
    for _, what, file, old, _ in mutations:
        times = (ROOT / LIBRARY / file).read_text(encoding="utf-8").count(old)
        if times != 1:
            raise SystemExit(f"{what}: {file} has {old!r} {times} times, not once; correct the mutation")


def rows_of(facts: Sequence[str]) -> list[tuple]:
    """Return the mutations of these facts, without any all of them; exit if there is no such fact."""
    known = list(dict.fromkeys(row[0] for row in MUTATIONS))
    for fact in facts:
        if fact not in known:
            nearest = difflib.get_close_matches(fact, known, cutoff=0)
            raise SystemExit(f"there is no fact {fact!r}; the nearest are {', '.join(nearest)}")
    return [row for row in MUTATIONS if row[0] in facts or not facts]


def main() -> int:
    wanted = rows_of(sys.argv[1:])
    check_texts(wanted)
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", ".whl", "results", ".snakemake", "__pycache__", "logs")
        shutil.copytree(ROOT, folder, ignore=ignored)
        failed, test = run_tests(folder, *sorted({test for row in wanted for test in tests_of(row[0], row[2])}))
        if failed:
            raise SystemExit(f"the tests fail without a mutation ({test}): nothing can be concluded")
        print("| fact | broken on purpose | noticed by |\n|---|---|---|")
        for fact, what, file, old, new in wanted:
            noticed, test = run_mutation(folder, fact, file, old, new)
            survivors += not noticed
            print(f"| {fact} | {what} | {f'`{test}`' if noticed else '**SURVIVED**'} |", flush=True)
    print(f"\n{survivors} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
