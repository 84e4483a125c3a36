"""Run the workflow in a folder of its own, from outside the clone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, random_sequence
from warm_python import warm_python


class Project:
    """A working directory with a sample sheet, and the workflow to run on it.

    Snakemake and its jobs start from a warm Python unless `python` is set: see warm_python.py.
    """

    def __init__(self, folder: Path, python: str | None = None):
        self.folder = folder
        self.python = python or warm_python()
        self.cores = 1  # as many tests run at a time as there are cores
        self.results = folder / "results" / "demo"  # of the model that a test takes unless it says otherwise

    def write_samples(self, **samples: str):
        """Write FASTA texts as samples, and the sheet."""
        lines = ["sample\tfasta"]
        for name, text in samples.items():
            (self.folder / f"{name}.fasta").write_text(text)
            lines.append(f"{name}\t{name}.fasta")
        (self.folder / "samples.tsv").write_text("\n".join(lines) + "\n")

    def command(self, *arguments: str, config: tuple[str, ...] = (), snakefile: Path = ROOT / "workflow/Snakefile"):
        """Return the snakemake call and where and how to make it, for subprocess.

        `samples=samples.tsv` and few validated sequences unless said otherwise.
        """
        settings = {"samples": "samples.tsv", "validation": "{sequences: 4}"}
        settings |= dict(item.split("=", 1) for item in config)
        command = [self.python, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", str(self.cores)]
        command += arguments
        if settings:
            command += ["--config", *(f"{key}={value}" for key, value in settings.items())]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return {"args": command, "cwd": self.folder, "env": environment}

    def run(self, *arguments: str, **options):
        """Run snakemake here, see `command`; both streams are in the result's `output`."""
        done = subprocess.run(**self.command(*arguments, **options), capture_output=True, text=True, timeout=600)
        done.output = done.stdout + done.stderr
        return done

    def passes(self, *arguments: str, **options):
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.output[-6000:]
        return done

    def fails(self, *arguments: str, **options):
        done = self.run(*arguments, **options)
        assert done.returncode != 0, done.output[-6000:]
        return done

    def embeddings(self, sample: str) -> pd.DataFrame:
        return pd.read_parquet(self.results / "embeddings" / f"{sample}.parquet")

    def matrix(self, sample: str, column: str = "mean_6") -> np.ndarray:
        return np.stack(self.embeddings(sample)[column])

    def stats(self) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted((self.results / "chunks").glob("*.json"))]

    def validation(self) -> dict:
        return json.loads((self.results / "validation" / "summary.json").read_text())


def without_group(rule: str) -> str:
    """Return the name of a rule without the feature and the number of its group of samples."""
    return re.sub(r"^(merge_samples|merge_residues|export_samples)_\w+$", r"\1", rule)


def proteins(count: int, seed: int = 0, shortest: int = 5, longest: int = 200) -> str:
    """Return FASTA text of random proteins p0, p1 ...; those of a smaller count are the first of a larger one."""
    text = ""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        text += f">p{i} family={'ab'[i % 2]}\n{random_sequence(rng.integers(shortest, longest), rng)}\n"
    return text


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def cold_project(tmp_path) -> Project:
    """A project whose processes start from nothing, as a user's do."""
    return Project(tmp_path, sys.executable)
