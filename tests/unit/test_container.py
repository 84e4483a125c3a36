"""The container and the CI file: what can be held without a container engine, conda or a network."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, list[str]]:
    """Return {stage: its instructions} of the Dockerfile."""
    found = {}
    for line in DOCKERFILE.splitlines():
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = lines = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_runs_the_installed_command_and_not_as_root(target):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    *_, user, entry = stages()[target]
    command = re.fullmatch(r'ENTRYPOINT \["([\w-]+)"\]', entry)[1]
    assert command in scripts
    assert user.startswith("USER ") and f" {user.split()[1]} " in " ".join(stages()["base"])
    install = 'pip install -c /opt/constraints.txt "$(echo /wheels/*.whl)[esmc]"'
    assert any(install in line for line in stages()[target])


def built_wheel(source: Path, folder: Path) -> set[str]:
    """Return the names of the files of a wheel that is built from a folder, without what git ignores."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if "__pycache__" not in name}


def test_the_files_that_docker_is_given_make_the_same_wheel(tmp_path):
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*" and rules[-1] == "**/__pycache__"
    (tmp_path / "source").mkdir()
    for rule in rules[1:-1]:
        path = ROOT / rule.removeprefix("!")
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / "source" / path.name)
    given, whole = built_wheel(tmp_path / "source", tmp_path / "given"), built_wheel(ROOT, tmp_path / "whole")
    assert given == whole and "packed_esm/tree/envs/constraints.txt" in given


def test_actions_of_others_are_pinned_to_a_commit_and_ci_covers_each_environment_and_target():
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert all(re.search(r"@[0-9a-f]{40} # v", line) for line in text.splitlines() if "uses:" in line)
    jobs = yaml.safe_load(text)["jobs"]
    environments = {path.stem for path in (ROOT / "envs").glob("*.yaml")}
    assert {row["env"] for row in jobs["conda"]["strategy"]["matrix"]["include"]} == environments
    assert set(jobs["container"]["strategy"]["matrix"]["target"]) == set(stages()) - {"base", "wheel"}
