"""The table of docs/reruns.md: each change is made on a finished run, and `--dry-run` asked what it would do again."""

import os
import re
import shutil

import pytest
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2

from .conftest import Project, proteins, without_group

CLONE = "clone/workflow"
RULES = (
    "chunk_fasta",
    "look_up",
    "embed_chunk",
    "merge_samples",
    "merge_residues",
    "export_samples",
    "validate",
    "make_report",
)
CONFIG = {"chunks": "2", "formats": "[npy]", "per_residue": "float16"}


def table():
    """Return {change: rules that run again} of docs/reruns.md."""
    rows = [line.strip("|").split("|") for line in (ROOT / "docs/reruns.md").read_text().splitlines() if "|" in line]
    (_, *rules), _, *changes = [[cell.strip() for cell in row] for row in rows]
    assert tuple(rules) == RULES
    return {change: {rule for rule, mark in zip(rules, marks, strict=True) if mark} for change, *marks in changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with the workflow inside its folder, so that a copy of all can be changed."""
    project = Project(tmp_path_factory.mktemp("finished"))
    for part in ("workflow", "config", "envs"):
        ignored = shutil.ignore_patterns("__pycache__", ".snakemake")
        shutil.copytree(ROOT / part, project.folder / "clone" / part, ignore=ignored)
    project.write_samples(s=proteins(6), t=proteins(3, seed=1))
    project.passes(config=settings(), snakefile=project.folder / CLONE / "Snakefile")
    return project.folder


def settings(**changed):
    return tuple(f"{key}={value}" for key, value in (CONFIG | changed).items())


def touched(*arguments):
    def change(folder):
        path = folder / "s.fasta"
        later = path.stat().st_mtime_ns + 60 * 10**9
        os.utime(path, ns=(later, later))
        return [((), arguments)]

    return change


def edited(name):
    def change(folder):
        path = folder / CLONE / name
        path.write_text(path.read_text() + "\n# edited\n")
        return [((), ())]

    return change


def commented(folder):
    """All at once: what reruns for none of them reruns for no single one."""
    files = [path for pattern in ("*.py", "*.smk", "Snakefile") for path in (folder / CLONE).rglob(pattern)]
    assert len(files) > 80
    for path in files:
        path.write_text(path.read_text() + "\n# edited\n")
    return [((), ())]


def number_raised(name, constant, new):
    def change(folder):
        path = folder / CLONE / name
        text, times = re.subn(rf"^{constant} = .*$", f"{constant} = {new}", path.read_text(), flags=re.MULTILINE)
        assert times == 1
        path.write_text(text)
        return [((), ())]

    return change


def clone_moved(folder):
    (folder / "clone").rename(folder / "moved")
    return [((), ())]


def configured(**keys):
    """Return a change: each key gets the value, in turn and alone."""
    return lambda folder: (((f"{key}={value}",), ()) for key, value in keys.items())


def samples(**texts):
    def change(folder):
        Project(folder).write_samples(**({"s": proteins(6), "t": proteins(3, seed=1)} | texts))
        return [((), ())]

    return change


def sample_removed(folder):
    Project(folder).write_samples(s=proteins(6))
    return [((), ())]


def earlier_results(folder):
    shutil.copytree(folder / "results", folder / "earlier")
    return [(("reuse=earlier",), ())]


def metadata(folder):
    (folder / "meta.tsv").write_text("id\nt0\n")
    return [(("metadata=meta.tsv",), ())]


def another_model(folder):
    save_fair_esm(random_esm2(2, 32, 2), folder / "esm2_small.pt")
    return [(("model=./esm2_small.pt",), ())]


def removed(pattern):
    def change(folder):
        for path in folder.glob(pattern):
            path.unlink()
        return [((), ())]

    return change


# Each yields (config, arguments) of the dry runs that its row stands for.
CHANGES = {
    "nothing": lambda folder: [((), ())],
    "a sample is added": samples(u=proteins(2, seed=2)),
    "a sample is removed": sample_removed,
    "a record is edited": samples(t=proteins(3, seed=1).replace("\n", "\nM", 1)),
    "a FASTA file is touched, its content the same (up to 1 MB)": touched(),
    "a FASTA file is touched, its content the same (larger)": touched("--max-checksum-file-size", "10"),
    "the caption of a figure": edited("report/pca.rst"),
    "the template of the page": edited("packed_esm/report/page.html.j2"),
    "a comment in any file of the library, of the scripts or of the rules": commented,
    "the version": number_raised("packed_esm/__init__.py", "__version__", '"99.0"'),
    "`BITS` is raised": number_raised("packed_esm/store/settings.py", "BITS", "99"),
    "the clone is moved": clone_moved,
    "the path of the sample sheet is written absolutely": lambda folder: [((f"samples={folder}/samples.tsv",), ())],
    "`color_by`": configured(color_by="OX"),
    "`residue_files`": configured(residue_files="linked"),
    "`rows_per_file`": configured(rows_per_file="4"),
    "`formats`": configured(formats="[npy, h5]"),
    "`metadata`, or what it names": metadata,
    "`validation.sequences`": configured(validation="{sequences: 5}"),
    "`validation.repeat` or `weights`": configured(validation="{sequences: 4, repeat: 0.5}", weights="streamed"),
    "`dtype`, `layers`, `pooling`, `attention`, `tokens_per_pack` or `on_nonfinite`": configured(
        dtype="bf16", layers="[3]", pooling="[max]", attention="padded", tokens_per_pack="512", on_nonfinite="fail"
    ),
    "`per_residue`, `include_dtype`, `contact_maps` or `pooled_dtype`": configured(
        per_residue="int8", include_dtype="float16", contact_maps="triangle", pooled_dtype="float16"
    ),
    "`reuse`": earlier_results,
    "`model`, of another width": another_model,
    "`on_invalid`, `on_duplicate_id`, `max_record_residues` or `chunks`": configured(
        on_invalid="replace", on_duplicate_id="suffix", max_record_residues="500", chunks="3"
    ),
    "`results/demo/embeddings/` is removed": removed("results/demo/embeddings/*"),
    "`results/demo/residues/s.representations.h5` is removed": removed("results/demo/residues/s.representations.h5"),
    "`results/demo/chunks/*.arrow` are removed, all else is there": removed("results/demo/chunks/*.arrow"),
}


def test_every_row_has_its_change():
    assert list(table()) == list(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reruns_what_the_table_says(project, finished, change):
    shutil.copytree(finished, project.folder, dirs_exist_ok=True)
    for config, arguments in CHANGES[change](project.folder):
        changed = dict(item.split("=", 1) for item in config)
        (snakefile,) = project.folder.glob("*/workflow/Snakefile")
        done = project.passes("--dry-run", *arguments, config=settings(**changed), snakefile=snakefile)
        jobs = re.findall(r"^(\w+) +\d+$", done.output, re.MULTILINE)
        again = set(map(without_group, jobs)) - {"all", "total"}
        assert again == table()[change], (config, done.output)
