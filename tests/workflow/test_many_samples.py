"""More samples than fit into a command: lists in files, one job for a group of samples, a short terminal."""

import re

import pandas as pd
import pytest

from .conftest import proteins
from .test_module import write_caller

LONGEST_ARGUMENT = 131072  # bytes, of Linux


@pytest.fixture
def many(project):
    """48 samples in a folder whose path has more than 3,000 letters."""
    deep = "/".join(["d" * 200] * 16)
    (project.folder / deep).mkdir(parents=True)
    lines = ["sample\tfasta"]
    for i in range(48):
        (project.folder / deep / f"{i}.fasta").write_text(proteins(1, seed=i, longest=12))
        lines.append(f"s{i}\t{deep}/{i}.fasta")
    (project.folder / "samples.tsv").write_text("\n".join(lines) + "\n")
    return project


def rules_of(output):
    """Return the rules of the jobs that ran."""
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))


def test_paths_that_are_too_long_for_a_command_run_to_the_end_with_a_short_terminal(many):
    done = many.passes("--printshellcmds")
    (chunk,) = (many.results / "settings/lists").glob("chunk.[0-9a-f]*.txt")
    assert chunk.stat().st_size > LONGEST_ARGUMENT
    assert "48 samples" in done.output and "Validation: passed; 48 rows checked" in done.output
    assert max(map(len, re.findall(r"\bpython \S+\.py .*", done.output))) < 2000
    assert done.output.count(".fasta, ... (49 files)") == 1 and done.output.count("d" * 200) < 16 * 12
    assert "(28 more samples are in counts.json)" in done.output
    (log,) = (many.folder / ".snakemake/log").glob("*.log")  # it keeps every name
    assert all(log.read_text().count(f"/{i}.fasta") for i in range(48)) and ".fasta, ... (" not in log.read_text()
    before = {path: path.stat().st_mtime_ns for path in (many.results / "embeddings").iterdir()}
    contents = {path: path.read_bytes() for path in before}
    (many.results / "embeddings/s7.parquet").unlink()
    again = many.passes("merge_samples").output
    assert rules_of(again) == {"merge_samples_1", "merge_samples"}  # small samples share a job
    assert {path: path.read_bytes() for path in before} == contents


@pytest.mark.parametrize("flags", [[], ["--nolock"], ["--allowed-rules", "chunk_fasta"]])
def test_jobs_read_the_lists_of_their_own_call_beside_another_run(project, flags):
    project.write_samples(a=">of_a\nMKV\n", b=">of_b\nMKL\n")
    manifest = project.results / "manifest.parquet"
    for name in "ab":
        (project.folder / "samples.tsv").write_text(f"sample\tfasta\ns\t{name}.fasta\n")
        project.passes(str(manifest.relative_to(project.folder)), *flags)
        assert pd.read_parquet(manifest)["id"].tolist() == [f"of_{name}"]
        locks = project.folder / ".snakemake/locks"
        locks.mkdir(exist_ok=True)
        (locks / "0.output.lock").write_text("/elsewhere/out\n")  # of a run with another name in this folder


def test_a_file_of_a_sample_is_made_again_with_its_group_alone(project):
    project.write_samples(**{name: proteins(2, seed=i) for i, name in enumerate("stu")})
    config = ("per_residue=float16", "residue_files=linked")
    project.passes("merge_samples", "merge_residues", config=config)
    files = [path for path in project.results.rglob("*") if path.is_file() and "settings" not in path.parts]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    removed = {project.results / "embeddings/t.parquet", project.results / "residues/u.representations.h5"}
    for path in removed:
        path.unlink()
    again = project.passes("merge_samples", "merge_residues", config=config).output
    assert rules_of(again) - {"merge_samples", "merge_residues"} == {
        "merge_samples_2",
        "merge_residues_representations_3",
    }
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    assert {path for path in files if after[path][1] != before[path][1]} == removed
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }


@pytest.mark.slow
def test_another_workflow_names_the_file_of_one_of_25_000_samples(project):
    (project.folder / "s.fasta").write_text(proteins(1))
    sheet = "".join(f"s{i}\ts.fasta\n" for i in range(25_000))
    (project.folder / "samples.tsv").write_text(f"sample\tfasta\n{sheet}")
    config = {"samples": "samples.tsv", "chunks": 100}
    done = project.passes("--dry-run", **write_caller(project, config, ["results/demo/embeddings/s24999.parquet"]))
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.output, re.MULTILINE))
    assert jobs == {
        "done": "1",
        "embeddings_chunk_fasta": "1",
        "embeddings_look_up": "1",
        "embeddings_embed_chunk": "100",
        "embeddings_merge_samples_32": "1",
        "total": "104",
    }
    assert len(done.output) < 100_000
