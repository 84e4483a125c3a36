"""A Slurm, and the shipped example embedded in two chunks: on this machine, and on that Slurm with each profile."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from .local_slurm import local_slurm, missing_programs

PLUGINS = ("snakemake_executor_plugin_slurm", "snakemake_executor_plugin_cluster_generic")

# What a user's own profile says of a site, here one without accounting; and how often to look.
SITE = """\
default-resources:
  slurm_partition: cpu
set-resources:
  embed_chunk:
    slurm_partition: gpu
  validate:
    slurm_partition: gpu
slurm-no-account: true
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 1
seconds-between-status-checks: 1
"""


@pytest.fixture(scope="session")
def slurm(request, tmp_path_factory):
    """The folder of the commands of a running Slurm."""
    if not request.config.getoption("--slurm"):
        pytest.skip("starts a Slurm: ./run test-slurm, or pytest tests/slurm --slurm")
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if missing := [name for name in PLUGINS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} missing: pip install '.[slurm,cluster-generic]'")
    with local_slurm(tmp_path_factory.mktemp("slurm")) as commands:
        yield commands


@pytest.fixture(scope="session")
def runs(slurm, tmp_path_factory):
    """The folders of three runs: {"local", "slurm", "cluster-generic"}."""
    site = tmp_path_factory.mktemp("site")
    (site / "profile.yaml").write_text(SITE)
    arguments = {
        "local": ("--cores", "2"),
        "slurm": ("--workflow-profile", "slurm", "--profile", str(site)),
        "cluster-generic": ("--workflow-profile", "cluster-generic", "--seconds-between-status-checks", "1"),
    }
    folders = {name: tmp_path_factory.mktemp(name) for name in arguments}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: _run_example(folders[name], arguments[name], slurm), arguments))
    return folders


def _run_example(folder, arguments, commands):
    config = ("chunks=2", "device=auto", "validation={sequences: 8}")
    snakemake = (sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"))
    done = subprocess.run(
        [*snakemake, *arguments, "--config", *config],
        cwd=folder,
        # Jobs have more threads than a small machine has cores: they must not wait for each other by spinning.
        env=os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
