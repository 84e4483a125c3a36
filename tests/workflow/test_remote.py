"""The workflow by the address of a git repository, as snakedeploy and `module` name it: without a clone of the user.

No network: the repositories are local, by `git+file:` and, for GitHub, by git's `url.insteadOf`.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from .conftest import proteins

COPIES = Path(".snakemake/packed-esm")

# What snakedeploy 0.17.1 writes for `deploy-workflow https://github.com/lab/packed-esm . --tag v1`.
SNAKEDEPLOY = """\
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/lab/packed-esm as a module
module packed_esm:
    snakefile:
        github("lab/packed-esm", path="workflow/Snakefile", tag="v1")
    config:
        config


# use all rules from https://github.com/lab/packed-esm
use rule * from packed_esm
"""


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with the workflow, of one commit, whose tag is v1."""
    folder = tmp_path_factory.mktemp("hosted") / "lab" / "packed-esm"
    for part in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".snakemake"))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    git(folder, "tag", "v1")
    return folder


@pytest.fixture
def github(repository, monkeypatch, tmp_path_factory):
    """Let github.com be the folder above the repository, and Snakemake's cache an empty one."""
    hosts = repository.parents[1]
    for name, value in {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{hosts}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }.items():
        monkeypatch.setenv(name, value)
    return repository


def commit(repository):
    return git(repository, "rev-parse", "HEAD").strip()


def test_a_snakefile_of_github_runs_to_the_end_and_gives_a_report(project, github):
    project.write_samples(s=proteins(3))
    done = project.passes(snakefile="gh:lab/packed-esm@v1")
    assert "Validation: passed" in done.output and len(project.embeddings("s")) == 3
    assert [path.name for path in (project.folder / COPIES).iterdir()] == [commit(github)]
    project.passes("--report", "report.html", snakefile="gh:lab/packed-esm@v1")
    assert "Principal components" in (project.folder / "report.html").read_text()
    shutil.rmtree(github.parents[1] / "lab.away", ignore_errors=True)
    github.parent.rename(github.parents[1] / "lab.away")
    try:  # a commit that is here needs no network
        assert "Nothing to be done" in project.passes(snakefile="gh:lab/packed-esm@v1").output
    finally:
        (github.parents[1] / "lab.away").rename(github.parent)


def test_what_snakedeploy_writes_runs_to_the_end_and_passes_lint(project, github):
    (project.folder / "workflow").mkdir()
    shutil.copytree(ROOT / "config", project.folder / "config")
    (project.folder / "workflow/Snakefile").write_text(SNAKEDEPLOY)
    (project.folder / "config/a.fasta").write_text(proteins(2))
    (project.folder / "config/samples.tsv").write_text("sample\tfasta\na\ta.fasta\n")
    snakefile = project.folder / "workflow/Snakefile"
    config = ("samples=config/samples.tsv",)
    project.passes(snakefile=snakefile, config=config)
    assert len(project.embeddings("a")) == 2
    assert "your workflow is in a good condition" in project.passes("--lint", snakefile=snakefile, config=config).output
    project.passes("--report", "report.zip", snakefile=snakefile, config=config)
    assert (project.folder / "report.zip").stat().st_size > 100_000


def test_a_module_of_a_local_repository_with_a_prefix_runs_to_the_end(project, repository):
    project.write_samples(s=proteins(2))
    (project.folder / "Snakefile").write_text(
        f'module esm:\n    snakefile: "git+file://{repository}/workflow/Snakefile@main"\n'
        '    config: config\n    prefix: "sub"\nuse rule * from esm as esm_*\n'
    )
    project.passes("esm_all", snakefile=project.folder / "Snakefile")
    assert (project.folder / "sub/results/demo/report.html").exists() and not (project.folder / "results").exists()
    (program,) = (project.folder / COPIES).glob("*/workflow/scripts/embed_chunk.py")
    assert program.read_bytes() == (ROOT / "workflow/scripts/embed_chunk.py").read_bytes()


def test_the_process_of_a_job_finds_the_copy_of_the_main_process(project, repository):
    project.write_samples(s=proteins(2))
    snakefile = f"git+file://{repository}/workflow/Snakefile@v1"
    project.passes("--until", "chunk_fasta", snakefile=snakefile)
    (copy,) = (project.folder / COPIES).iterdir()
    before = copy.stat()
    job = ("--mode", "remote", "--nolock", "--force", "--target-jobs", "chunk_fasta:")
    project.passes(*job, snakefile=snakefile)
    assert [path.stat().st_ino for path in (project.folder / COPIES).iterdir()] == [before.st_ino]
    assert copy.stat().st_mtime_ns == before.st_mtime_ns


def test_rules_use_the_library_of_their_commit_where_another_is_imported_before(project, repository, tmp_path):
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repository), str(other))
    plan = other / "workflow/packed_esm/planning/plan.py"
    plan.write_text(plan.read_text() + '\nprint("the library of", __file__)\n')
    git(other, "commit", "-q", "-a", "-m", "says where it is")
    project.write_samples(s=proteins(2))
    (project.folder / "Snakefile").write_text(
        f'import sys\nsys.path.insert(0, "{ROOT}/workflow")\nimport packed_esm.planning.plan\n'
        f'module esm:\n    snakefile: "git+file://{other}/workflow/Snakefile@main"\n    config: config\n'
        "use rule * from esm as esm_*\n"
    )
    done = project.passes("--dry-run", "esm_all", snakefile=project.folder / "Snakefile")
    folder = project.folder / COPIES / commit(other)
    assert f"the library of {folder}/workflow/packed_esm/planning/plan.py" in done.output
