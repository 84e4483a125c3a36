"""A plain Snakemake environment is enough to read the rules: jobs may have all else from conda."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2
from packaging.requirements import Requirement

from .conftest import Project, proteins

CONFIGS = {
    "the defaults": (),
    "nucleotides, files for each residue, every format": (
        *("input=nucleotide", "per_residue=float16", "include=logits,contacts", "formats=h5,npy,h5ad,pt"),
        *("model=mine.pt", "layers=0,-1"),
    ),
    "metadata, windows, a model to download": (
        *("metadata=about.tsv", "color_by=host", "model=esm2_t33_650M_UR50D"),
        "long_proteins={max_length: 1022, action: split}",
    ),
    "earlier results, a GPU": ("reuse=earlier", "device=cuda"),
}


def with_requirements(*names: str) -> dict[str, Distribution]:
    """Return {name: distribution} of installed packages and of all that they require."""
    found, queue = {}, list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another system, or optional
            continue
        needed = map(Requirement, found[name].requires or ())
        queue += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def plain_python(tmp_path_factory):
    """A Python with the packages snakemake and pandas, what they require, and nothing else."""
    folder = tmp_path_factory.mktemp("plain")
    packages = folder / "packages"
    packages.mkdir()
    for one in with_requirements("snakemake", "pandas").values():
        for name in {Path(file).parts[0] for file in one.files} - {"..", "__pycache__"}:
            target = packages / name
            if not target.exists():
                target.symlink_to(one.locate_file(name))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def plain(tmp_path, plain_python):
    project = Project(tmp_path, str(plain_python))
    project.write_samples(s=proteins(2))
    (tmp_path / "about.tsv").write_text("id\thost\np0\tpig\n")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/s.parquet").write_bytes(b"not read before a job needs it")
    save_fair_esm(random_esm2(num_layers=2, embed_dim=32, heads=2), tmp_path / "mine.pt", contacts=True)
    return project


def test_the_plain_environment_lacks_what_the_programs_need(plain_python):
    code = "import snakemake, pandas, importlib.util as u; print([n for n in ({}) if u.find_spec(n)])"
    names = "'torch', 'esm', 'Bio', 'pyarrow', 'h5py', 'tqdm', 'xxhash', 'matplotlib', 'sklearn', 'packed_esm'"
    done = subprocess.run([plain_python, "-c", code.format(names)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_dry_run_needs_snakemake_and_pandas_alone(plain, config):
    done = plain.passes("--dry-run", config=config)
    assert "embed_chunk" in done.output and "make_report" in done.output


def test_environments_of_conda_are_found_by_a_plain_environment(plain, monkeypatch):
    """A command `conda` that says where it is stands for conda: a dry run asks it for no more."""
    conda = plain.folder / "bin" / "conda"
    conda.parent.mkdir()
    prefix, version = plain.folder / "conda", "24.11.0"
    info = {"conda_prefix": str(prefix), "root_prefix": str(prefix), "platform": "linux-64", "conda_version": version}
    answers = {"info": json.dumps(info), "config": '{"get": {"channel_priority": "strict"}}', "--version": version}
    cases = "".join(f"{first}) echo '{answer}';;\n" for first, answer in answers.items())
    conda.write_text(f"#!/bin/sh\ncase $1 in\n{cases}*) exit 1;;\nesac\n")
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", str(conda.parent), prepend=os.pathsep)
    done = plain.passes("--dry-run", "--sdm", "conda", config=("device=cuda",))
    assert set(re.findall(r"Conda environment (.*) will be created", done.output)) == {
        *(str(ROOT / "envs" / name) for name in ("cpu.yaml", "gpu.yaml"))
    }


def test_lint_and_the_rule_graph_need_snakemake_and_pandas_alone(plain):
    assert "your workflow is in a good condition" in plain.passes("--lint").output
    assert "embed_chunk" in plain.passes("--rulegraph", "mermaid-js").output


def test_a_run_without_conda_says_before_the_first_job_that_fair_esm_is_missing(plain):
    done = plain.fails()
    assert "fair-esm is not installed; pip install fair-esm==2.0.0" in done.output
    assert not (plain.folder / "logs").exists()


@pytest.mark.parametrize(
    "call",
    [
        ("--lint",),
        ("--rulegraph",),
        ("--dag",),
        ("--summary",),
        ("--list-rules",),
        ("--unlock",),
        ("--dry-run",),
    ],
    ids=lambda call: call[0],
)
def test_a_call_that_only_shows_writes_no_file(project, call):
    project.write_samples(s=proteins(1))
    before = files_of(project.folder)
    project.passes(*call)
    assert files_of(project.folder) == before


def test_a_report_of_snakemake_changes_no_file_of_the_results(project):
    project.write_samples(s=proteins(1))
    project.passes("merge_samples")
    before = files_of(project.folder)
    project.run("--report", "report.html", config=("layers=[0]",))  # which a run would embed again
    assert {path: seen for path, seen in files_of(project.folder).items() if path != "report.html"} == before


def files_of(folder):
    """Return {path: (content, time)} of the files outside Snakemake's own folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
