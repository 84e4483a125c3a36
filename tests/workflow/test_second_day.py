"""A second day: records are added, and what is known is copied by jobs that hold no GPU."""

import re
import shutil

import numpy as np
import pytest

from .conftest import Project, proteins

CONFIG = ("chunks=4",)
COPIED = "no device: copied"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("finished"))
    project.write_samples(s=proteins(60), t=proteins(30, seed=1))
    project.passes("merge_samples", config=CONFIG)
    return project.folder


@pytest.fixture
def copy(finished, project):
    shutil.copytree(finished, project.folder, dirs_exist_ok=True)
    return project


def gpus(output):
    """Return {number of a chunk: GPUs} that Snakemake gave to embed jobs."""
    jobs = re.findall(r"scatteritem=(\d)-of-4\n    resources: .*\bgpu=(\d)", output)
    return {int(number): int(gpu) for number, gpu in jobs}


def computed(project):
    """Return how many sequences each job did not copy."""
    return [job["sequences"] - job["reused_sequences"] for job in project.stats()]


def test_one_chunk_has_what_is_new_and_the_others_are_copied_without_a_gpu(copy, tmp_path_factory):
    copy.write_samples(s=proteins(62), t=proteins(30, seed=1))
    done = copy.passes("--resources", "gpu=1", config=CONFIG)
    assert gpus(done.output) == {1: 1, 2: 0, 3: 0, 4: 0}
    assert computed(copy) == [2, 0, 0, 0] and [job["device"] == COPIED for job in copy.stats()] == [False] + [True] * 3
    log = (copy.folder / "logs/demo/look_up.log").read_text()
    assert "90 of 92 sequences are in earlier results" in log and "3 of 4 chunks are copied" in log
    assert copy.validation()["passed"]
    plain = Project(tmp_path_factory.mktemp("plain"))
    plain.write_samples(s=proteins(62), t=proteins(30, seed=1))
    plain.passes("merge_samples", config=CONFIG)
    for sample in "st":
        name = f"embeddings/{sample}.parquet"
        assert (copy.results / name).read_bytes() == (plain.results / name).read_bytes()
    assert "Nothing to be done" in copy.passes("--dry-run", config=CONFIG).output


def test_reuse_that_is_named_after_chunking_is_looked_up_again(copy, finished):
    shutil.rmtree(copy.folder / "results")
    (copy.folder / "results/demo").mkdir(parents=True)
    copy.passes("--until", "chunk_fasta", config=CONFIG)
    shutil.copytree(finished / "results", copy.folder / "earlier")
    done = copy.passes("merge_samples", config=(*CONFIG, "reuse=earlier"))
    assert gpus(done.output) == dict.fromkeys((1, 2, 3, 4), 0) and computed(copy) == [0, 0, 0, 0]
    assert np.array_equal(copy.matrix("s"), Project(finished).matrix("s"))
    done = copy.passes("--dry-run", "merge_samples", config=CONFIG)
    assert "look_up" in done.output and "chunk_fasta" not in done.output


def test_a_chunk_that_is_removed_is_embedded_alone(copy):
    (copy.results / "chunks/2-of-4.arrow").unlink()
    (copy.results / "embeddings/t.parquet").unlink()
    done = copy.passes("merge_samples", config=CONFIG)
    assert set(gpus(done.output)) == {2} and "rule look_up" not in done.output


def test_a_job_that_must_compute_after_all_does_so_where_it_needs_no_gpu(copy):
    """The earlier results are of a CPU, so is the machine."""
    path = copy.results / "embeddings/s.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # among the vectors
    path.write_bytes(data)
    copy.write_samples(s=proteins(61), t=proteins(30, seed=1))
    copy.passes("merge_samples", config=CONFIG)
    assert sum(computed(copy)) > 1
    logs = "".join(x.read_text() for x in (copy.folder / "logs/demo/embed_chunk").iterdir())
    assert "values or digest do not match their checksum" in logs and "cannot be copied from earlier" in logs
