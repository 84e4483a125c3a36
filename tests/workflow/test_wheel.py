"""The wheel has all that a run needs: built, installed in an environment of its own, and run outside the clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

from .conftest import proteins

JUNK = ("workflow/packed_esm.egg-info/PKG-INFO", "workflow/scripts/__pycache__/validate.pyc", "workflow/.snakemake/log")


@pytest.fixture(scope="module")
def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {path for path in listed.split("\0") if path and (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, tracked):
    """The wheel of a copy of the clone, in which other tools have left files."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked:
        (folder / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / "clone" / path)
    for path in JUNK:
        (folder / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "clone" / path).touch()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=folder / "clone", check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_tracked_files_of_the_clone_and_no_others(wheel, tracked):
    names = set(zipfile.ZipFile(wheel).namelist())
    tree = {path for path in tracked if path.split("/")[0] in ("workflow", "config", "envs")}
    assert {name.removeprefix("packed_esm/tree/") for name in names if name.startswith("packed_esm/tree/")} == tree
    packages = ("workflow/packed_esm/", "workflow/snakemake_logger_plugin_packed_esm/")
    own = {path.removeprefix("workflow/") for path in tree if path.startswith(packages)}
    assert {name for name in names if "dist-info/" not in name and "packed_esm/tree/" not in name} == own
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
