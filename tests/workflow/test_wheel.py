"""The wheel has all that a run needs: built, installed in an environment of its own, and run outside the clone."""

import os
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

from .conftest import proteins


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_tree_of_the_clone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "workflow", "config", "envs"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {f"packed_esm/tree/{path}" for path in tracked} <= names
    assert not [name for name in names if "__pycache__" in name or "results" in name.split("/")]
    assert wheel.stat().st_size < 10e6


@pytest.mark.slow
def test_the_installed_command_embeds_a_file_without_the_clone(wheel, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = tmp_path.glob("venv/lib/*/site-packages")
    # What the wheel depends on, from this environment: a path in a .pth file, whose own .pth files do not count.
    (site / "dependencies.pth").write_text(f"{Path(find_spec('snakemake').origin).parents[1]}\n")
    python = tmp_path / "venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "mine.faa").write_text(proteins(3))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(tmp_path / "venv/bin/packed-esm"), "mine.faa", "formats=h5", "--cores", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Validation: passed" in done.stdout + done.stderr
    assert (tmp_path / "results/demo/embeddings/mine.mean_6.h5").exists()
    logs = [path.read_text() for path in tmp_path.glob(".snakemake/log/*.log")]
    assert logs and all(str(site / "packed_esm/tree/workflow") in text for text in logs)
    assert not [text for text in logs if str(ROOT / "workflow") in text]
