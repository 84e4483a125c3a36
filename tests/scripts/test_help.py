"""What --help says: an example that works as printed, and what every option means."""

import gzip
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PROGRAMS, ROOT, random_sequence

NAMES = sorted(path.stem for path in PROGRAMS.glob("[!_]*.py"))


def parser_of(name, monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))
    return importlib.import_module(name).build_parser()


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Return a function that runs the example in the help of a program from a folder that looks like the clone."""
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for variable in ("https_proxy", "HTTPS_PROXY"):
        environment[variable] = "http://127.0.0.1:9"

    def run(name, old="", new=""):
        command = parser_of(name, monkeypatch).format_help().split("Example:\n")[1].split("\n\noptions:")[0]
        assert command.strip().startswith(f"python workflow/scripts/{name}.py ")
        command = command.replace(old, new) if old else command
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.mark.slow
def test_the_examples_work_as_printed_one_after_the_other(tmp_path, example):
    rng = np.random.default_rng(0)
    proteins = "".join(f">p{i}\n{random_sequence(60, rng)}\n" for i in range(6))
    (tmp_path / "human.fasta.gz").write_bytes(gzip.compress(proteins.encode()))
    (tmp_path / "yeast.fasta").write_text(proteins.replace(">p", ">q")[:-9] + "\n")
    (tmp_path / "reads.fasta.gz").write_bytes(gzip.compress(b">r\n" + b"ATGGCC" * 70 + b"\n"))
    (tmp_path / "variants.tsv").write_text(f"sample\tid\tmutations\nhuman\tp0\t{proteins[4]}1A\n")
    steps = (
        "chunk_fasta",
        "embed_chunk",
        "merge_sample",
        "look_up",
        "merge_residues",
        "validate",
        "make_report",
        "export_sample",
        "score_variants",
    )
    again = {"embed_chunk": ("1-of-2", "2-of-2"), "merge_sample": ("human", "yeast")}
    for name in ("translate", *steps):
        for replaced in ((), again[name]) if name in again else ((),):
            done = example(name, *replaced)
            assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made > {
        "proteins.fasta",
        "human.representations.h5",
        "validation.json",
        "report.html",
        "human.pt",
        "scores.tsv",
    }
    assert np.array_equal(
        np.load(tmp_path / "human.mean_6.npy"), np.stack(pd.read_parquet(tmp_path / "human.parquet")["mean_6"])
    )
    assert '"found": 3' in (tmp_path / "earlier.json").read_text()
    assert set(NAMES) == {"translate", "download_model", *steps}


def test_the_example_of_a_download_says_what_to_do_without_a_network(tmp_path, example):
    done = example("download_model")
    assert done.returncode == 1 and "by other means and put it at esm2_t33_650M_UR50D.pt" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["workflow"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_is_and_its_default(name, monkeypatch):
    for action in parser_of(name, monkeypatch)._actions:
        option, text = action.option_strings[-1], action.help or ""
        assert text and not text.endswith(".") and text[0] != " ", option
        if action.default not in (None, [], "", False, "==SUPPRESS=="):
            assert "(default: " in text, option
        repeated = type(action).__name__ == "_AppendAction"
        assert repeated == bool(re.search("; repeatable$", text)), option
