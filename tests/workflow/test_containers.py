"""Jobs in containers: `apptainer` is a stand-in, which runs a command on this machine as Snakemake asks for it."""

import json
import os
import shlex
import sys

import pytest
from conftest import ROOT

from .conftest import Project, proteins

# As in a container of Apptainer, the home folder is the one of --home, and only the programs of the image are found.
APPTAINER = """#!{python} -IS
import json, os, sys

words = sys.argv[1:]
if words == ["--version"]:
    print("apptainer version 1.3.4")
    sys.exit()
place = words.index("exec") + 1
options = {{}}
while words[place].startswith("--"):
    options[words[place]] = words[place + 1]
    place += 2
image, *command = words[place:]
told = {{name: value for name, value in os.environ.items() if name.startswith(("APPTAINER_", "SINGULARITY_"))}}
with open({calls!r}, "a") as calls:
    calls.write(json.dumps({{"image": image, "command": command, "told": told}}) + "\\n")
os.environ.update(HOME=options["--home"], PATH=f"{{image}}/bin:/usr/bin:/bin")
os.execvp(command[0], command)
"""


@pytest.fixture
def apptainer(project, tmp_path_factory, monkeypatch):
    """The image, a folder outside the project with one program; and a function that reads the calls of apptainer."""
    folder = tmp_path_factory.mktemp("apptainer")
    (folder / "image" / "bin").mkdir(parents=True)
    (folder / "image" / "bin" / "python").symlink_to(project.python)
    program = folder / "apptainer"
    program.write_text(APPTAINER.format(python=os.path.realpath(sys.executable), calls=str(folder / "calls")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")  # without python
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return folder / "image", lambda: list(map(json.loads, (folder / "calls").read_text().splitlines()))


def test_every_job_runs_in_the_image_and_makes_the_results_of_a_plain_run(project, apptainer, tmp_path_factory):
    image, calls = apptainer
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.fasta"
    elsewhere.write_text(proteins(5))
    plain = Project(tmp_path_factory.mktemp("plain"))
    options = (f"samples={elsewhere}", "per_residue=float16", "formats=h5", "validation={sequences: 2}")
    project.passes("--sdm", "apptainer", config=(f"container={image}", *options))
    plain.passes(config=options)
    for path in ("embeddings/a.parquet", "embeddings/a.mean_6.h5", "residues/a.representations.h5"):
        assert (project.results / path).read_bytes() == (plain.results / path).read_bytes()
    programs = set()
    for call in calls():
        shell, _, text = call["command"]
        assert (shell, call["image"]) == ("bash", str(image))
        words = shlex.split(text)
        programs.add(words[words.index("python") + 1])
        folders = call["told"]["APPTAINER_BIND"].split(",")  # that of the input is in the temporary folder
        assert str(ROOT) in folders and any(elsewhere.is_relative_to(folder) for folder in folders)
        assert call["told"]["SINGULARITY_BIND"] == call["told"]["APPTAINER_BIND"]
        assert "APPTAINER_NV" not in call["told"]
    names = ("chunk_fasta", "look_up", "embed_chunk", "merge_sample", "merge_residues", "export_sample", "validate")
    names += ("make_report",)
    assert programs == {str(ROOT / f"workflow/scripts/{name}.py") for name in names}


def test_an_image_that_is_not_used_is_named_once(project):
    project.write_samples(a=proteins(1))
    output = project.passes("--until", "chunk_fasta", config=("container=docker://registry/image",)).output
    line = "container: docker://registry/image is not used, because Snakemake was called without --sdm apptainer"
    assert output.count(line) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ((), "container: --sdm apptainer needs an image, and none is published; set container=docker://..."),
        (("container=missing.sif",), "container: there is no missing.sif"),
    ],
)
def test_containers_without_what_they_need_are_refused_before_any_job(project, apptainer, config, message):
    project.write_samples(a=proteins(1))
    assert message in project.fails("--dry-run", "--sdm", "apptainer", config=config).output
