"""Outputs of masked copies in a run: jobs, repeats, reuse, out-of-memory, merged files, exports and validation."""

from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import random_esm2, small_card
from packed_esm.embedding import attempts, masked
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.masked import MaskedCopies
from packed_esm.embedding.options import EmbedOptions
from packed_esm.embedding.pt_files import pt_folder
from packed_esm.errors import RepeatError, ValidationError
from packed_esm.outputs.marginals import AMINO_ACIDS
from packed_esm.outputs.table import RESIDUES, SCALARS
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.store.export import export_sample
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions

FEATURES = ("wildtype_marginals", "masked_marginals")
COLUMNS = ("pseudo_log_likelihood", "pseudo_log_likelihood_mean")
SEQUENCES = {"a": "MVLSPADKTN", "b": "MKVXA" * 8, "c": "G", "twin": "MVLSPADKTN", "d": "ACDEFGHIKL" * 6}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path):
    """Return a function that embeds one sample in two chunks and merges it; it has the paths and a validation."""
    options = EmbedOptions(
        save_fair_esm(random_esm2(num_layers=2, embed_dim=32, heads=2), tmp_path / "esm2_small.pt"),
        include=(*COLUMNS, *FEATURES, "log_likelihood"),
        device="cpu",
        tokens_per_pack=256,
    )
    fasta, manifest = tmp_path / "s.fasta", tmp_path / "m"
    fasta.write_text("".join(f">{name} text\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    chunks = [tmp_path / "chunks" / f"{i}.fasta" for i in (1, 2)]
    chunk_samples([("s", fasta)], chunks, manifest, tmp_path / "r", tmp_path / "c.json")

    def again(options=options, folder=tmp_path, reuse=(), **how):
        stems = [folder / "chunks" / chunk.stem for chunk in chunks]
        folder.joinpath("chunks").mkdir(parents=True, exist_ok=True)
        statistics = [
            embed_fasta(
                chunk,
                stem.with_suffix(".arrow"),
                stem.with_suffix(".json"),
                options,
                reuse,
                {feature: stem.with_suffix(f".{feature}.h5") for feature in FEATURES},
                **how,
            )
            for chunk, stem in zip(chunks, stems, strict=True)
        ]
        paths = {feature: folder / "residues" / f"s.{feature}.h5" for feature in FEATURES}
        for feature, path in paths.items():
            merge_residues(manifest, {"s": path}, [stem.with_suffix(f".{feature}.h5") for stem in stems])
        parquet = folder / "embeddings" / "s.parquet"
        merge_samples(manifest, {"s": parquet}, [stem.with_suffix(".arrow") for stem in stems])
        return parquet, paths, statistics

    def check(parquet, paths, options=options):
        return validate(
            [("s", fasta, parquet)],
            manifest,
            [chunk.with_suffix(".json") for chunk in chunks],
            tmp_path / "v.tsv",
            tmp_path / "v.json",
            ValidationOptions(32),
            options,
            {("s", feature): path for feature, path in paths.items()},
        )

    again.options, again.folder, again.manifest, again.chunks, again.check = options, tmp_path, manifest, chunks, check
    return again


@pytest.mark.parametrize("windows", [None, ResidueWindows(25, 10)], ids=["whole", "windows"])
def test_a_good_run_passes_and_says_how_near_it_is_to_fair_esm(run, windows):
    options = replace(run.options, windows=windows)
    parquet, paths, _ = run(options)
    summary = run.check(parquet, paths, options)
    assert summary["passed"] and summary["bit_equal"]
    assert 0 < summary["worst_masked_kl_max"] < 1e-9
    assert 0 < summary["worst_masked_marginals_rms"] < 1e-5 and 0 < summary["worst_wildtype_marginals_rms"] < 1e-5
    for column in COLUMNS:
        assert 0 < summary[f"worst_{column}_relative_l2"] < 2e-6
    table = pd.read_parquet(parquet)
    assert np.allclose(table["pseudo_log_likelihood"], table["pseudo_log_likelihood_mean"] * table["length"], rtol=1e-5)
    for path in paths.values():
        with h5py.File(path) as file:
            for record, sequence in SEQUENCES.items():
                assert file[record].shape == (len(sequence), 20) and file[record].dtype == np.float32
                assert file[record].attrs["amino_acids"] == AMINO_ACIDS
                standard = [i for i, letter in enumerate(sequence) if letter in AMINO_ACIDS]
                own = [AMINO_ACIDS.index(sequence[i]) for i in standard]
                assert (file[record][...][standard, own] == 0).all()  # log p(wild type) - log p(wild type)


def unmasked(tokens, positions):
    return np.tile(tokens, (len(positions), 1))


def two_masked(tokens, positions):
    copies = unmasked(tokens, positions)
    copies[:, 1] = 32
    copies[np.arange(len(positions)), positions] = 32
    return copies


@pytest.mark.parametrize("copies", [unmasked, two_masked])
def test_copies_with_another_mask_fail_though_a_second_run_repeats_them(run, monkeypatch, copies):
    monkeypatch.setattr(masked, "_copies", copies)
    parquet, paths, _ = run()
    with pytest.raises(ValidationError, match="masked_kl_max to the reference is"):
        run.check(parquet, paths)


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("masked_marginals", lambda right: lambda x, t: right(x, t)[:, ::-1].copy(), "masked_marginals_rms"),
        ("masked_marginals", lambda right: lambda x, t: right(x, t) + np.float32(0.01), "masked_marginals_rms"),
        ("pseudo_log_likelihood", lambda right: lambda x, t: right(x, t) * 1.001, "pseudo_log_likelihood_relative_l2"),
        ("pseudo_log_likelihood_mean", lambda right: lambda x, t: right(x[::-1], t), "mean_relative_l2"),
    ],
)
def test_a_wrong_formula_fails_though_a_second_run_repeats_it(run, monkeypatch, name, wrong, error):
    table = RESIDUES if name in RESIDUES else SCALARS
    monkeypatch.setitem(table, name, replace(table[name], of_masked=wrong(table[name].of_masked)))
    parquet, paths, _ = run()
    with pytest.raises(ValidationError, match=f"{error} to the reference is"):
        run.check(parquet, paths)


def test_wrong_wild_type_marginals_fail_though_a_second_run_repeats_them(run, monkeypatch):
    right = RESIDUES["wildtype_marginals"]
    wrong = replace(right, of_logits=lambda logits, ids: right.of_logits(logits, ids.roll(1)))
    monkeypatch.setitem(RESIDUES, "wildtype_marginals", wrong)
    parquet, paths, _ = run()
    with pytest.raises(ValidationError, match="wildtype_marginals_rms to the reference is"):
        run.check(parquet, paths)


def test_a_stored_value_that_differs_by_one_bit_fails(run, monkeypatch):
    parquet, paths, _ = run()
    logits = MaskedCopies.logits

    def other(self, progress=lambda copies: None):
        for index, rows in logits(self, progress):
            rows[0, 5] = np.nextafter(rows[0, 5], np.float32(9))
            yield index, rows

    monkeypatch.setattr(MaskedCopies, "logits", other)
    with pytest.raises(ValidationError, match="the stored values differ from those"):
        run.check(parquet, paths)


def test_chunks_and_budgets_of_other_sequences_do_not_change_a_bit_and_equal_work_gives_equal_bytes(run, tmp_path):
    _, paths, _ = run()
    first = {name: path.read_bytes() for name, path in paths.items()}
    _, again, _ = run(folder=tmp_path / "again")
    assert first == {name: path.read_bytes() for name, path in again.items()}
    whole = tmp_path / "whole.fasta"
    whole.write_text("".join(chunk.read_text() for chunk in run.chunks[::-1]))
    kept = {feature: tmp_path / f"whole.{feature}.h5" for feature in FEATURES}
    embed_fasta(whole, tmp_path / "whole.arrow", tmp_path / "whole.json", run.options, (), kept)
    for feature, path in kept.items():
        with h5py.File(path) as one, h5py.File(paths[feature]) as merged:
            for dataset in merged.values():
                assert one[dataset.attrs["digest"]].attrs["checksum"] == dataset.attrs["checksum"]


def test_what_is_wrong_once_is_noticed_where_all_are_repeated(run, monkeypatch):
    logits, done = MaskedCopies.logits, []

    def wrong_once(self, progress=lambda copies: None):
        for index, rows in logits(self, progress):
            if len(rows) == 60 and not done:
                done.append(index)
                rows[7, 5] += np.float32(0.5)
            yield index, rows

    monkeypatch.setattr(MaskedCopies, "logits", wrong_once)
    with pytest.raises(RepeatError, match=r"different bits in pseudo_log_likelihood.*masked_marginals; 1 of"):
        run(repeat=1.0)
    monkeypatch.setattr(MaskedCopies, "logits", logits)
    for path in (run.folder / "chunks").glob("*.npz"):
        path.unlink()
    _, _, statistics = run(repeat=1.0)
    assert sum(one["repeated_sequences"] for one in statistics) == 4


def test_earlier_results_are_reused_with_all_of_them(run, tmp_path, monkeypatch):
    parquet, paths, _ = run()
    monkeypatch.setattr(attempts, "add_masked", lambda copies, *_: None if not copies.tokens else pytest.fail("ran"))
    monkeypatch.setattr(Embedder, "_start", lambda *_, **__: pytest.fail("ran"))
    again, others, statistics = run(folder=tmp_path / "again", reuse=[parquet], repeat=0)
    assert sum(one["reused_sequences"] for one in statistics) == 4
    assert pd.read_parquet(again).equals(pd.read_parquet(parquet))
    for feature, path in others.items():
        with h5py.File(path) as one, h5py.File(paths[feature]) as other:
            for name in one:
                assert np.array_equal(one[name][...], other[name][...])
                assert one[name].attrs["amino_acids"] == AMINO_ACIDS


def test_out_of_memory_of_masked_copies_starts_again_with_half_the_budget(run, tmp_path, monkeypatch, caplog):
    small = replace(run.options, tokens_per_pack=1024)
    _, want, _ = run(small, folder=tmp_path / "small")
    small_card(monkeypatch)
    _, found, statistics = run(replace(run.options, tokens_per_pack=4096), folder=tmp_path / "large")
    assert statistics[0]["settings"]["tokens_per_pack"] == 1024 and "retrying with 1024" in caplog.text
    for feature, path in found.items():
        with h5py.File(path) as one, h5py.File(want[feature]) as other:
            assert all(np.array_equal(one[name][...], other[name][...]) for name in other)


def test_exports_have_the_columns_and_the_values_of_each_residue(run):
    parquet, paths, _ = run()
    folder = run.folder / "pt"
    export_sample(parquet, run.manifest, "s", others=[partial(pt_folder, folder, list(paths.items()))])
    index = pd.read_csv(folder / "index.tsv", sep="\t").set_index("id")
    table = pd.read_parquet(parquet).set_index("id")
    saved = torch.load(folder / index.loc["b", "file"], weights_only=True)
    for column in COLUMNS:
        assert saved[column] == pytest.approx(float(table.loc["b", column]))
    with h5py.File(paths["masked_marginals"]) as file:
        assert np.array_equal(saved["masked_marginals"].numpy(), file["b"][...])
