"""Values of each residue of earlier results: taken where all of them are there and right, and never otherwise."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import random_esm2, random_sequence
from packed_esm.embedding import attempts
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.errors import EmbeddingFileError
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.store import residues
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues

FEATURES = ("representations", "logits")
RNG = np.random.default_rng(0)
SEQUENCES = [random_sequence(int(length), RNG) for length in RNG.integers(5, 90, 9)]
IDS = ["sp|P69905|HBA_HUMAN", "a/b", *(f"p{i}" for i in range(2, 9))]
OLD, NEW = range(6), range(9)


@dataclass
class Results:
    """Results of one sample in a folder; the chunk is embedded anew by `run`."""

    folder: Path
    options: EmbedOptions

    def run(self, numbers=NEW, features=FEATURES, dtype="float32", link=False, ids=IDS, **more):
        """Chunk, embed and merge records; return the statistics of the embed job."""
        folder = self.folder
        for name in ("chunks", "embeddings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        text = "".join(f">{ids[i]}\n{SEQUENCES[i]}\n" for i in numbers) + f">twin\n{SEQUENCES[numbers[0]]}\n"
        (folder / "s.fasta").write_text(text)
        chunk = folder / "chunks/1.fasta"
        chunk_samples([("s", folder / "s.fasta")], [chunk], *(folder / name for name in ("m", "r", "c.json")))
        residues = {feature: chunk.with_suffix(f".{feature}.h5") for feature in features}
        arguments = chunk.with_suffix(".arrow"), chunk.with_suffix(".json"), self.options
        stats = embed_fasta(chunk, *arguments, residues=residues, storage=StorageOptions(dtype), **more)
        merge_samples(folder / "m", {"s": self.parquet}, [chunk.with_suffix(".arrow")])
        for feature, path in residues.items():
            merge_residues(folder / "m", {"s": self.file(feature)}, [path], link)
        return stats

    @property
    def parquet(self):
        return self.folder / "embeddings/s.parquet"

    def file(self, feature):
        return self.folder / f"residues/s.{feature}.h5"

    def values(self):
        """Return {(feature, name): (values, attributes)}, and the bytes of the vectors."""
        found = {}
        for feature in FEATURES:
            with h5py.File(self.file(feature)) as file:
                found |= {(feature, name): (x[...].tobytes(), dict(x.attrs)) for name, x in file.items()}
        return found, self.parquet.read_bytes()


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = save_fair_esm(random_esm2(2, 32, 2), tmp_path_factory.mktemp("model") / "esm2_small.pt")
    return EmbedOptions(path, device="cpu", tokens_per_pack=2048, include=("logits",))


@pytest.fixture(scope="module")
def first(tmp_path_factory, options):
    """(Results of six sequences, values of all nine in a run of its own.)"""
    earlier, whole = (Results(tmp_path_factory.mktemp(name), options) for name in ("earlier", "whole"))
    earlier.run(OLD)
    whole.run()
    return earlier.folder, whole.values()


@pytest.fixture
def earlier(first, options, tmp_path):
    """A copy of the earlier results, which a test may change."""
    return Results(Path(shutil.copytree(first[0], tmp_path / "earlier")), options)


@pytest.fixture
def new(options, tmp_path):
    return Results(tmp_path / "new", options)


def test_only_new_sequences_are_embedded_and_all_values_have_the_same_bits(earlier, new, first, monkeypatch):
    embedded = []
    original = Embedder.embed
    monkeypatch.setattr(
        Embedder, "embed", lambda self, tokens, **o: embedded.extend(map(len, tokens)) or original(self, tokens, **o)
    )
    stats = new.run(reuse=[earlier.parquet], repeat=1.0)
    lengths = [len(SEQUENCES[i]) + 2 for i in (6, 7, 8)]
    assert sorted(embedded) == sorted(2 * lengths) and stats["reused_sequences"] == 6
    assert stats["repeated_sequences"] == 3 and new.values() == first[1]


def test_the_values_are_named_by_the_records_that_they_are_now_of(earlier, new):
    others = [f"other{i}" for i in range(9)]
    assert new.run(OLD, ids=others, reuse=[earlier.parquet])["reused_sequences"] == 6
    with h5py.File(new.folder / "chunks/1.logits.h5") as file:
        assert all(sorted(x.attrs) == ["checksum", "digest", "feature"] for x in file.values())
    with h5py.File(new.file("logits")) as file:
        assert {name: x.attrs["original_id"] for name, x in file.items()} == {name: name for name in file}


def test_names_are_those_of_the_right_row_group(earlier, new, first):
    table = pq.read_table(earlier.parquet)
    pq.write_table(table, earlier.parquet, row_group_size=2)
    assert new.run(reuse=[earlier.parquet])["reused_sequences"] == 6 and new.values() == first[1]


@pytest.mark.parametrize("own", [False, True], ids=["earlier", "own"])
def test_a_file_that_is_missing_gives_nothing(earlier, new, first, caplog, own):
    earlier.file("logits").unlink()
    sources = {"own_results": earlier.folder} if own else {"reuse": [earlier.parquet]}
    assert new.run(**sources)["reused_sequences"] == 0 and new.values() == first[1]
    assert f"{earlier.parquet} is not used: {earlier.file('logits')} is missing" in caplog.text or own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float16"}, "per_residue: 'float16' / 'float32'"),
        ({"features": ("representations",)}, None),
    ],
    ids=["other-dtype", "fewer-features"],
)
def test_only_what_is_wanted_must_be_there_and_with_the_same_settings(earlier, new, caplog, change, said):
    assert new.run(**change, reuse=[earlier.parquet])["reused_sequences"] == (0 if said else 6)
    assert said is None or said in caplog.text


def test_a_file_of_another_feature_gives_nothing(earlier, new, caplog):
    shutil.copy(earlier.file("representations"), earlier.file("logits"))
    assert new.run(reuse=[earlier.parquet])["reused_sequences"] == 0
    assert "s.logits.h5 contains representations, not logits" in caplog.text


def removed(file, name):
    del file[name]


def of_another(file, name):
    """Put the dataset of another sequence in its place, as where ids changed and one file is older."""
    del file[name]
    file.copy("p3", name)


def link_to_nothing(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("gone.h5", "x")


@pytest.mark.parametrize("change", [removed, of_another, link_to_nothing])
def test_a_sequence_that_is_not_in_all_files_is_embedded(earlier, new, first, caplog, change):
    with h5py.File(earlier.file("logits"), "a") as file:
        change(file, "p4")
    assert new.run(reuse=[earlier.parquet])["reused_sequences"] == 5 and new.values() == first[1]
    assert "1 more sequences are in it, but not all of their values for each residue" in caplog.text


def test_changed_values_stop_the_job_or_are_embedded_again_where_they_are_the_runs_own(earlier, new, first, caplog):
    with h5py.File(earlier.file("representations"), "a") as file:
        file["p4"][0, 0] += 1
    with pytest.raises(
        EmbeddingFileError, match=r"representations.h5, dataset 'p4', .*changed.*remove it from `reuse`"
    ):
        new.run(reuse=[earlier.parquet])
    assert new.run(own_results=earlier.folder)["reused_sequences"] == 5 and new.values() == first[1]
    assert "dataset 'p4'" in caplog.text and "is embedded again" in caplog.text


def damage_attributes(path, name):
    """Overwrite the head of an attribute's message, so that the attributes of a dataset cannot be read."""
    with h5py.File(path, "a") as file:
        file[name].attrs["damaged_here"] = 1
    content = path.read_bytes()
    place = content.index(b"damaged_here")
    path.write_bytes(content[: place - 9] + b"\xff" * 9 + content[place:])


def test_a_sequence_whose_second_feature_is_damaged_is_embedded_again_where_it_is_the_runs_own(
    earlier, new, first, caplog
):
    damage_attributes(earlier.file("logits"), "p4")
    with pytest.raises(EmbeddingFileError, match="logits.h5: not a whole"):
        new.run(reuse=[earlier.parquet])
    assert new.run(own_results=earlier.folder)["reused_sequences"] == 5 and new.values() == first[1]
    assert "is embedded again" in caplog.text and "logits.h5: not a whole" in caplog.text


def test_a_sequence_is_copied_wholly_or_not_at_all(earlier, new, first, monkeypatch):
    original = residues.copy_dataset

    def copy(source, target, name):
        if source.name == "/p4" and source.attrs["feature"] == "logits":
            raise residues.RESIDUE_FILE.damaged(source.file.filename, "its blocks are not there")
        original(source, target, name)

    monkeypatch.setattr(residues, "copy_dataset", copy)
    assert new.run(own_results=earlier.folder)["reused_sequences"] == 5 and new.values() == first[1]


@pytest.mark.parametrize("which", ["parquet", "logits"])
def test_a_file_that_is_not_whole_stops_the_job_or_is_left_where_it_is_the_runs_own(earlier, new, first, which):
    path = earlier.parquet if which == "parquet" else earlier.file(which)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EmbeddingFileError, match=rf"{path}: not a whole .* remove it from `reuse`"):
        new.run(reuse=[earlier.parquet])
    assert new.run(own_results=earlier.folder)["reused_sequences"] == 0 and new.values() == first[1]


def test_values_that_links_lead_to_are_taken_from_other_results_and_not_from_the_runs_own(
    options, new, tmp_path, first
):
    linked = Results(tmp_path / "linked", options)
    linked.run(OLD, link=True)
    assert new.run(own_results=linked.folder)["reused_sequences"] == 0
    assert new.run(reuse=[linked.parquet])["reused_sequences"] == 6 and new.values() == first[1]


def test_no_values_of_residues_need_be_there_where_none_are_wanted(earlier, new):
    earlier.file("logits").unlink()
    stats = new.run(features=(), own_results=earlier.folder)
    assert stats["reused_sequences"] == 6


def test_after_an_out_of_memory_nothing_of_the_larger_budget_is_kept(earlier, new, options, tmp_path, monkeypatch):
    original = Embedder.embed

    def embed(self, tokens, **more):
        if self.tokens_per_pack > 1024:
            original(self, tokens[:1], **more)  # some is written before
            raise torch.OutOfMemoryError("too much")
        return original(self, tokens, **more)

    monkeypatch.setattr(Embedder, "embed", embed)
    monkeypatch.setattr(attempts.torch.cuda, "empty_cache", lambda: None)
    stats = new.run(reuse=[earlier.parquet])
    assert stats["reused_sequences"] == 0 and stats["settings"]["tokens_per_pack"] == 1024
    small = Results(tmp_path / "small", replace(options, tokens_per_pack=1024))
    small.run()
    assert new.values() == small.values()
