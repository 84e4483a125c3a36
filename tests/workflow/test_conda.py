"""Jobs in conda environments, in dry runs: `conda` itself is a program that only says what Snakemake asks about it."""

import os
import re

import pytest

from .conftest import proteins

CONDA = """#!/bin/sh
case "$1" in
    info) echo '{"conda_prefix": "/opt/conda", "platform": "linux-64", "root_prefix": "/opt/conda"}' ;;
    --version) echo conda 25.1.1 ;;
    config) echo '{"get": {"channel_priority": "strict"}}' ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def conda_project(project, monkeypatch):
    """A project where no GPU is visible, and `conda` is there."""
    folder = project.folder / "bin"
    folder.mkdir()
    (folder / "conda").write_text(CONDA)
    (folder / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    project.write_samples(a=proteins(2))
    return project


@pytest.mark.parametrize(
    ("config", "arguments", "environments", "reason"),
    [
        ([], [], {"cpu"}, "device is auto, and this machine shows no NVIDIA GPU"),
        ([], ["--jobs", "9"], {"cpu", "gpu"}, "device is auto, and submitted jobs request a GPU"),
        (["device=cuda"], [], {"cpu", "gpu"}, "device is cuda"),
        (["device=cuda", "attention=flash-attn"], [], {"cpu", "flash-attn"}, "device is cuda; attention is flash-attn"),
    ],
)
def test_a_run_says_once_which_environment_runs_the_model_and_creates_it(
    conda_project, config, arguments, environments, reason
):
    output = conda_project.passes("--dry-run", "--sdm", "conda", *arguments, config=config).output
    (said,) = re.findall(r"^conda: jobs that run the model use envs/([\w-]+)\.yaml \((.*)\)$", output, re.MULTILINE)
    assert said == ((environments - {"cpu"} or {"cpu"}).pop(), reason)
    assert set(re.findall(r"Conda environment \S*envs/([\w-]+)\.yaml will be created", output)) == environments


def test_a_run_without_conda_says_nothing_of_environments(conda_project):
    output = conda_project.passes("--dry-run").output
    assert "conda:" not in output and "envs/" not in output
