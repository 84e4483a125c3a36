"""Many jobs on Slurm of which one is killed, while Slurm's controller ends: the results are those of a plain run.

Snakemake and its jobs are forks of a warm Python (`warm_python.py`); 40 jobs that each import torch take five minutes.
"""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
from conftest import random_sequence
from warm_python import warm_python

from .conftest import run
from .test_clusters import content

CHUNKS = 40
CONFIG = ("samples=samples.tsv", f"chunks={CHUNKS}", "per_residue=float16", "device=cpu")
TARGETS = ("results/demo/embeddings/s.parquet", "results/demo/residues/s.representations.h5")
CHUNK_FILES = "results/demo/chunks"


class Crashes(threading.Thread):
    """Kills an embed job while its file is half-written, then ends the controller, and starts it again.

    Attributes:
        killed: the chunk whose job was killed; None until then.
        left: the half-written file of that job.
        unfinished: embed jobs that had not ended when the controller did.
    """

    def __init__(self, folder, slurm):
        super().__init__(daemon=True)
        self.folder, self.slurm = folder, slurm
        self.killed = self.left = None
        self.unfinished = 0

    def run(self):
        while self.killed is None:
            for path in (self.folder / CHUNK_FILES).glob(".*.representations.h5.*.partial"):
                *_, process, _, _ = path.name.split(".")
                os.kill(int(process), signal.SIGKILL)
                self.killed, self.left = re.match(r"\.(\d+-of-\d+)\.", path.name)[1], path
                break
            time.sleep(0.002)
        while len(list((self.folder / CHUNK_FILES).glob("*.arrow"))) < CHUNKS // 4:
            time.sleep(0.02)
        self.slurm.end_controller()
        self.unfinished = CHUNKS - len(list((self.folder / CHUNK_FILES).glob("*.arrow")))
        time.sleep(3)
        self.slurm.start_controller()


@pytest.fixture(scope="module")
def crashed(slurm, tmp_path_factory):
    """The folders of a plain run and of one with crashes, what the latter printed, and its crashes."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("plain", "crashes")}
    rng = np.random.default_rng(0)
    text = "".join(f">p{i}\n{random_sequence(20 + i % 50, rng)}\n" for i in range(3 * CHUNKS))
    for folder in folders.values():
        (folder / "s.fasta").write_text(text)
        (folder / "samples.tsv").write_text("sample\tfasta\ns\ts.fasta\n")
    crashes = Crashes(folders["crashes"], slurm)
    crashes.start()
    options = ("--workflow-profile", "cluster-generic", "--seconds-between-status-checks", "4", "--retries", "1")
    printed = run(folders["crashes"], (*TARGETS, *options), CONFIG, slurm, warm_python())
    crashes.join()
    run(folders["plain"], (*TARGETS, "--cores", "2", "--set-threads", "embed_chunk=1"), CONFIG, slurm, warm_python())
    return folders, printed, crashes


def test_the_results_have_the_bytes_of_a_run_without_crashes_and_nothing_is_left(crashed):
    folders, _, crashes = crashed
    got, want = (content(folders[name]) for name in ("crashes", "plain"))
    assert got.keys() == want.keys() and len(want) > 2 * CHUNKS
    assert [path for path in want if got[path] != want[path]] == []
    assert not crashes.left.exists()
    assert [path for path in folders["crashes"].rglob("*.partial")] == []


def test_the_killed_job_is_named_and_comes_again(crashed):
    _, printed, crashes = crashed
    assert re.search(rf"Error in rule embed_chunk.*{crashes.killed}", printed, re.DOTALL)
    assert "Trying to restart job" in printed
    assert crashes.unfinished > 4
