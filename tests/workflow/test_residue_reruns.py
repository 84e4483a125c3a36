"""Files for each residue: they travel, and what is in them is not embedded again."""

import shutil

import h5py
import numpy as np
import pytest

from .conftest import Project, proteins

CONFIG = ("chunks=2", "per_residue=float16", "include=[logits]")
FEATURES = ("representations", "logits")
MERGE = ("merge_samples", "merge_residues")
S, T, U = (proteins(count, seed=seed) for seed, count in enumerate((5, 3, 2)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("finished"))
    project.write_samples(s=S, t=T)
    project.passes(*MERGE, config=CONFIG)
    return project.folder


@pytest.fixture
def copy(finished, project):
    shutil.copytree(finished, project.folder, dirs_exist_ok=True)
    return project


def values(folder, *samples):
    """Return {(sample, feature, name): values} of the merged files, each of them moved to a folder of its own first."""
    found = {}
    for sample in samples:
        for feature in FEATURES:
            alone = folder / "alone" / f"{sample}.{feature}.h5"
            alone.parent.mkdir(exist_ok=True)
            shutil.copy(folder / f"results/demo/residues/{alone.name}", alone)
            with h5py.File(alone) as file:
                found |= {(sample, feature, name): dataset[...] for name, dataset in file.items()}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def embedded(project):
    """Return how many sequences the embed jobs did not take from earlier results."""
    return sum(job["sequences"] - job["reused_sequences"] for job in project.stats())


def logs(project):
    return "".join(path.read_text() for path in sorted((project.folder / "logs/demo/embed_chunk").iterdir()))


def test_a_merged_file_is_whole_without_the_files_of_chunks_which_are_removed(finished):
    assert not list((finished / "results/demo/chunks").glob("*.h5"))
    found = values(finished, "s", "t")
    assert len(found) == 2 * 8 and all(np.abs(array).max() > 0 for array in found.values())


def test_a_new_sample_embeds_only_its_new_sequences(copy, finished):
    copy.write_samples(s=S, t=T, u=U + S.replace(">", ">again_"))
    copy.passes(config=CONFIG)
    assert embedded(copy) == 2 and sum(job["sequences"] for job in copy.stats()) == 10
    assert sum(job["repeated_sequences"] for job in copy.stats()) > 0
    found = values(copy.folder, "s", "t", "u")
    assert same({key: array for key, array in found.items() if key[0] != "u"}, values(finished, "s", "t"))
    assert np.array_equal(found["u", "logits", "again_p0"], found["s", "logits", "p0"])
    assert copy.validation()["passed"] and copy.validation()["bit_equal"]
    assert "Nothing to be done" in copy.passes("--dry-run", config=CONFIG).output


def test_a_removed_file_embeds_only_the_sequences_of_its_sample(copy, finished):
    (copy.folder / "results/demo/residues/s.logits.h5").unlink()
    copy.passes(*MERGE, config=CONFIG)
    assert embedded(copy) == 5 and "results/demo/embeddings/s.parquet is not used: results/demo/residues/" in logs(copy)
    assert same(values(copy.folder, "s", "t"), values(finished, "s", "t"))


def test_after_a_stop_between_embedding_and_merging_only_the_same_is_embedded(copy, finished):
    (copy.folder / "results/demo/residues/s.logits.h5").unlink()
    copy.passes("--until", "embed_chunk", config=CONFIG)
    assert embedded(copy) == 5
    (copy.folder / "results/demo/residues/t.logits.h5").with_name(".t.logits.h5.host.1.ab.partial").write_bytes(b"half")
    copy.passes(*MERGE, config=CONFIG)
    assert embedded(copy) == 5 and same(values(copy.folder, "s", "t"), values(finished, "s", "t"))


def test_changed_values_are_embedded_again_and_never_taken(copy, finished):
    with h5py.File(copy.folder / "results/demo/residues/t.logits.h5", "a") as file:
        file["p1"][0, 0] += 1
    (copy.folder / "results/demo/residues/s.representations.h5").unlink()
    copy.passes(*MERGE, config=CONFIG)
    assert embedded(copy) == 6 and "dataset 'p1', sequence SQ." in logs(copy)
    text = logs(copy)
    assert "is embedded again" in text and "its values were changed: they do not match its checksum" in text
    assert same(values(copy.folder, "s", "t"), values(finished, "s", "t"))


def test_values_of_other_settings_are_not_taken(copy):
    copy.passes(*MERGE, config=(*CONFIG, "per_residue=float32"))
    assert embedded(copy) == 8 and "made with other settings: per_residue: 'float32' / 'float16'" in logs(copy)


def test_earlier_results_give_their_values_of_each_residue(copy, finished):
    (copy.folder / "results").rename(copy.folder / "earlier")
    copy.write_samples(s=S, u=U)
    copy.passes(*MERGE, config=(*CONFIG, "reuse=earlier"))
    assert embedded(copy) == 2 and same(values(copy.folder, "s"), values(finished, "s"))
    with h5py.File(copy.folder / "earlier/demo/residues/s.logits.h5", "a") as file:
        file["p1"][0, 0] += 1
    shutil.rmtree(copy.folder / "results")
    copy.fails(*MERGE, config=(*CONFIG, "reuse=earlier"))
    assert "dataset 'p1', sequence SQ." in logs(copy) and "remove it from `reuse`, or replace it" in logs(copy)


def test_linked_files_keep_the_chunks_and_whole_ones_are_made_of_them(copy, finished):
    linked, whole = (*CONFIG, "residue_files=linked"), (*CONFIG, "formats=[pt]")
    copy.passes(*MERGE, config=linked)
    assert embedded(copy) == 0 and len(list((copy.folder / "results/demo/chunks").glob("*.h5"))) == 4
    with h5py.File(copy.folder / "results/demo/residues/s.logits.h5") as file:
        assert file.get("p0", getlink=True).filename.startswith("../chunks/")
    (copy.folder / "results/demo/residues/s.logits.h5").unlink()
    done = copy.passes(*MERGE, config=linked)
    assert "embed_chunk" not in done.output
    done = copy.passes("export_samples", config=whole)
    assert "embed_chunk" not in done.output and same(values(copy.folder, "s", "t"), values(finished, "s", "t"))
    assert not list((copy.folder / "results/demo/chunks").glob("*.h5"))
