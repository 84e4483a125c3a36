"""From FASTA to validated embeddings, a sequence with `<mask>` is what fair-esm makes of the same text."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fair_esm_alone, relative_l2
from esm.data import Alphabet
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.options import ChunkOptions, LongProteins
from packed_esm.store.embeddings import ChunkFile
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions

TEXTS = {
    "one": "MKVLL<mask>GGSTERTIDPKQ",
    "none": "MKVLLXGGSTERTIDPKQ",
    "first_and_last": "<mask>KVLLAGGSTERTIDPK<mask>",
    "half": "M<mask>" * 20,
    "alone": "<mask>",
    "nothing_else": "<mask>" * 30,
    "with_gaps": "M-K.V<mask>UOBZX<mask><mask>-",
}
LAYERS = [0, 3, 6]


def prepared(tmp_path, options, long_proteins=LongProteins()):  # noqa: B008
    """Chunk, embed and merge TEXTS; return (manifest, columns in the order of TEXTS, a function that validates)."""
    fasta = tmp_path / "s.fasta"
    written = "".join(f">{name}\n{text}\n" for name, text in TEXTS.items())
    fasta.write_text(written.replace("V<mask>", "V<MA\nsk>"))
    chunk, manifest_path, stats, arrow = (tmp_path / name for name in ("1.fasta", "m.parquet", "1.json", "1.arrow"))
    samples, chunking = [("s", fasta)], ChunkOptions(long_proteins=long_proteins)
    chunk_samples(samples, [chunk], manifest_path, tmp_path / "r.tsv", tmp_path / "c.json", chunking)
    residues = {"representations": tmp_path / "1.h5"}
    embed_fasta(chunk, arrow, stats, options, (), residues, StorageOptions("float32"))
    merge_samples(manifest_path, {"s": tmp_path / "s.parquet"}, [arrow])
    merge_residues(manifest_path, {"s": tmp_path / "s.h5"}, [tmp_path / "1.h5"])

    def check():
        outputs = (tmp_path / "v.tsv", tmp_path / "v.json")
        files = {("s", "representations"): tmp_path / "s.h5"}
        given = [("s", fasta, tmp_path / "s.parquet")]
        return validate(given, manifest_path, [stats], *outputs, ValidationOptions(), options, files)

    return pd.read_parquet(manifest_path), ChunkFile(arrow).columns, check


def test_a_masked_sequence_is_embedded_as_fair_esm_does_and_validated(tmp_path, demo):
    poolings = ("mean", "max", "bos", "eos")
    manifest, columns, check = prepared(tmp_path, EmbedOptions(DEMO_PATH, LAYERS, poolings, device="cpu"))
    assert (manifest["status"] == "accepted").all() and manifest["masks"].tolist() == [1, 0, 2, 20, 1, 30, 3]
    converter = Alphabet.from_architecture("ESM-1b").get_batch_converter()
    for row, (name, text) in enumerate(TEXTS.items()):
        _, _, tokens = converter([(name, text)])
        truth = fair_esm_alone(demo, tokens[0].numpy(), LAYERS)
        assert manifest["length"][row] == len(tokens[0]) - 2
        for layer in LAYERS:
            want = truth[layer][1:-1]
            for column, vector in (("mean", want.mean(0)), ("max", want.amax(0)), ("bos", truth[layer][0])):
                got = torch.tensor(columns[f"{column}_{layer}"][row])
                assert torch.allclose(got, vector, atol=1e-5) and (not vector.any() or relative_l2(got, vector) < 2e-6)
    summary = check()
    assert summary["passed"] and summary["sequences_compared"] == len(TEXTS)


@pytest.mark.parametrize("layer", [3, 6])
def test_windows_count_a_mask_as_one_residue(tmp_path, layer):
    long_proteins = LongProteins(8, "split", 3)
    options = EmbedOptions(DEMO_PATH, [layer], device="cpu", windows=long_proteins.windows)
    manifest, columns, check = prepared(tmp_path, options, long_proteins)
    assert manifest.set_index("id")["reason"]["half"] == "40 residues in 8 windows of 8"
    assert np.isfinite(columns[f"mean_{layer}"]).all() and check()["passed"]
