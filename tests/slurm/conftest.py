"""A Slurm, and the shipped example embedded in two chunks: on this machine, and on that Slurm with each profile."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

from .local_slurm import local_slurm, missing_programs

EXAMPLE = ("chunks=2", "device=auto", "validation={sequences: 8}")
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
    """A running Slurm."""
    if not request.config.getoption("--slurm"):
        pytest.skip("starts a Slurm: ./run test-slurm, or pytest tests/slurm --slurm")
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if missing := [name for name in PLUGINS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} missing: pip install '.[slurm,cluster-generic]'")
    with local_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of a user's own profile."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "profile.yaml").write_text(SITE)
    return folder


@pytest.fixture(scope="session")
def runs(slurm, site, tmp_path_factory):
    """The folders of three runs: {"local", "slurm", "cluster-generic"}."""
    arguments = {
        "local": ("--cores", "2"),
        "slurm": ("--workflow-profile", "slurm", "--profile", str(site)),
        "cluster-generic": ("--workflow-profile", "cluster-generic", "--seconds-between-status-checks", "1"),
    }
    folders = {name: tmp_path_factory.mktemp(name) for name in arguments}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: run(folders[name], arguments[name], EXAMPLE, slurm), arguments))
    return folders


def run(folder, arguments, config, slurm, python=sys.executable):
    """Run the workflow in a folder, and return what it printed."""
    paths = f"{slurm.commands}:{Path(python).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [python, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), *arguments, "--config", *config],
        cwd=folder,
        # Jobs have more threads than a small machine has cores: they must not wait for each other by spinning.
        env=os.environ | {"PATH": paths, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    return output
