"""A run that dies, at whatever moment, is finished by the next: nothing lost, half-written or computed twice."""

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest

from .conftest import Project, proteins

CONFIG = ("chunks=2",)
MERGE = ("merge_samples",)
# What a life dies of: the rule to be inside of, and how many of its jobs to let pass before.
DEATHS = [
    *[("chunk_fasta", 0)] * 4,
    ("embed_chunk", 0),
    ("embed_chunk", 1),
    ("embed_chunk", 0),
    *[("merge_sample", 0)] * 4,
]
DEATHS_AT_THE_END = [("validate", 0), ("make_report", 0)]
# How far into a job the kill may come, as a part of its usual time; the next where a job ended before its kill.
SPARE = 32 * 1024  # bytes for snakemake's own files on a full disk, fewer than an embed job writes
REACHES = (0.9, 0.6, 0.3, 0.1)
OUTPUT_OF = {
    "chunk_fasta": "results/demo/manifest.parquet",
    "embed_chunk": "results/demo/chunks/",
    "merge_sample": "results/demo/embeddings/",
    "validate": "results/demo/validation/",
    "make_report": "results/demo/report.html",
}


class Missed(Exception):
    """The job had ended before it was to be killed."""


class Run:
    """A snakemake in a process group of its own."""

    def __init__(self, project: Project, *arguments: str):
        self.log = project.folder / "run.log"
        with self.log.open("w") as handle:
            self.process = subprocess.Popen(
                **project.command(*arguments, config=CONFIG),
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def jobs(self, rule: str) -> list[psutil.Process]:
        """Return the processes of the rule's program that run now."""
        found = []
        try:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                words = process.cmdline()
                if len(words) > 1 and words[1].endswith(f"/{rule}.py"):
                    found.append(process)
        except psutil.NoSuchProcess:
            pass
        return found

    def next_job(self, rule: str, let_pass: int) -> psutil.Process | None:
        """Wait for a process of the rule, the one after `let_pass` others; None if the run ends before."""
        seen: list[psutil.Process] = []
        while self.process.poll() is None:
            for job in self.jobs(rule):
                if job not in seen:
                    seen.append(job)
                if len(seen) > let_pass:
                    return job
            time.sleep(0.02)
        return None

    def kill(self):
        """End the scheduler and all of its jobs at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def failures(self, rule: str) -> int:
        """Return how many jobs of the rule failed."""
        return self.log.read_text().count(f"Error in rule {rule}")


def results(folder: Path) -> dict[str, Path]:
    return {
        str(p.relative_to(folder)): p
        for p in (folder / "results").rglob("*")
        if p.is_file() and "settings" not in p.parts and p.name != "settings.json"
    }


def incomplete(folder: Path) -> set[str]:
    """Return the outputs that snakemake began and did not finish; it names its markers so."""
    markers = (folder / ".snakemake/incomplete").rglob("*")
    return {base64.b64decode(p.name).decode() for p in markers if p.is_file() and p.name != "migrated"}


def complete(folder: Path) -> dict[str, int]:
    """Return {path: time of change} of the results that are done."""
    unfinished = incomplete(folder)
    done = {name: path for name, path in results(folder).items() if ".partial" not in name}
    return {name: path.stat().st_mtime_ns for name, path in done.items() if name not in unfinished}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the results, but of those that tell seconds, memory and what was there before."""
    tell_time = (
        "results/demo/earlier.json",
        "results/demo/report.html",
        "results/demo/figures/throughput.png",
        "results/demo/figures/stages.png",
    )
    return {
        name: path.read_bytes()
        for name, path in results(folder).items()
        if name not in tell_time and not (name.startswith("results/demo/chunks/") and name.endswith(".json"))
    }


def beside_chunks(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files without those that depend on which sequence is in which chunk.

    Where chunking runs again, sequences that are merged already get chunks of their own.
    """
    of_chunks = ("results/demo/chunks/", "results/demo/manifest.parquet")
    return {name: content for name, content in files.items() if not name.startswith(of_chunks)}


class Life:
    """One project that dies again and again."""

    def __init__(self, project: Project, seconds: dict[str, float], rng: random.Random):
        self.project, self.seconds, self.rng = project, seconds, rng
        self.done: dict[str, int] = {}
        self.run: Run | None = None

    def die(self, rule: str, let_pass: int, whole: bool, until: tuple[str, ...] = ()):
        """Kill inside a job of the rule: the scheduler with all its jobs (`whole`), or that job alone."""
        for reach in REACHES:
            if self.run is None or self.run.process.poll() is not None:
                self.run = Run(self.project, *until)
            try:
                self.strike(rule, let_pass, whole, reach)
            except (Missed, psutil.NoSuchProcess):
                self.undo(rule)
            else:
                return
        pytest.fail(f"a job of {rule} always ended before it could be killed")

    def strike(self, rule: str, let_pass: int, whole: bool, reach: float):
        job = self.run.next_job(rule, let_pass)
        if job is None:
            raise Missed
        time.sleep(self.rng.uniform(0, reach * self.seconds[rule]))
        failures, now = self.run.failures(rule), complete(self.project.folder)
        if job.status() == psutil.STATUS_ZOMBIE:
            raise Missed
        if whole:
            self.run.kill()
            self.see_unfinished(rule)
            self.project.passes("--unlock", config=CONFIG)
        else:
            job.kill()
            self.see_failure(rule, failures + 1)
        self.see_kept()
        self.done = now

    def see_kept(self):
        """See that what was complete at the last death has not been written again."""
        now = complete(self.project.folder)
        assert {name: now.get(name) for name in self.done} == self.done

    def see_unfinished(self, rule: str):
        """Miss, if snakemake took the job for finished."""
        if not any(name.startswith(OUTPUT_OF[rule]) for name in incomplete(self.project.folder)):
            raise Missed

    def see_failure(self, rule: str, failures: int):
        """Wait until the run has noticed that its job died; it may go on, with a second attempt."""
        end = time.monotonic() + 10
        while self.run.failures(rule) < failures:
            if time.monotonic() > end:
                raise Missed
            time.sleep(0.05)

    def undo(self, rule: str):
        """Take back what the rule and those after it have done, so that it runs once more."""
        if self.run.process.poll() is None:
            self.run.kill()
        self.project.passes("--unlock", config=CONFIG)
        rules = list(OUTPUT_OF)
        for later in rules[rules.index(rule) :]:
            for name, path in results(self.project.folder).items():
                if name.startswith(OUTPUT_OF[later]) and not (later == "embed_chunk" and name.endswith(".fasta")):
                    path.unlink()
                    self.done.pop(name, None)
        if rule == "chunk_fasta":
            self.done = {}

    def live(self, *until: str):
        """Run to the end."""
        self.run.process.wait()
        self.project.passes(*until, config=CONFIG)
        self.see_kept()


@dataclass
class Undisturbed:
    """A run that nothing happened to: its folder, the results up to merging, all results."""

    folder: Path
    merged: dict[str, bytes]
    all: dict[str, bytes]


def write_samples(project):
    project.write_samples(s=proteins(60) + ">bad\nM*V\n", t=proteins(30, seed=1))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    write_samples(project)
    project.passes(*MERGE, config=CONFIG)
    merged = contents(project.folder)
    project.passes(config=CONFIG)
    return Undisturbed(project.folder, merged, contents(project.folder))


@pytest.fixture(scope="module")
def seconds(tmp_path_factory):
    """Seconds of a job, by rule."""
    project = Project(tmp_path_factory.mktemp("seconds"), sys.executable)
    write_samples(project)
    project.passes(config=CONFIG)
    found = {"make_report": 2.0}  # it has no benchmark
    stats = [json.loads(path.read_text()) for path in (project.results / "chunks").glob("*.json")]
    found["embed_chunk"] = min(sum(one["seconds"].values()) for one in stats)
    for rule in ("chunk_fasta", "merge_sample", "validate"):
        tables = sorted((project.folder / "benchmarks" / "demo").glob(f"{rule}*/*.tsv"))
        tables += sorted((project.folder / "benchmarks" / "demo").glob(f"{rule}.tsv"))
        found[rule] = min(float(pd.read_csv(table, sep="\t")["s"][0]) for table in tables)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(cold_project, undisturbed, seconds, seed):
    project = cold_project
    write_samples(project)
    life = Life(project, seconds, random.Random(seed))
    for number, (rule, let_pass) in enumerate(DEATHS):
        life.die(rule, let_pass, (number + seed) % 2 == 0, MERGE)
    if seed == 0:
        life.run.process.wait()
        for number, (rule, let_pass) in enumerate(DEATHS_AT_THE_END):
            life.die(rule, let_pass, number % 2 == 0)
    life.live(*(() if seed == 0 else MERGE))
    assert contents(project.folder) == (undisturbed.all if seed == 0 else undisturbed.merged)
    assert not list((project.folder / "results").rglob(".*"))  # nothing half-written is left


def test_the_lock_that_a_killed_run_leaves_is_named_with_its_remedy(cold_project):
    project = cold_project
    write_samples(project)
    run = Run(project, *MERGE)
    assert run.next_job("chunk_fasta", 0)
    run.kill()
    assert "--unlock" in project.fails(*MERGE, config=CONFIG).output
    project.passes("--unlock", config=CONFIG)
    project.passes("--until", "chunk_fasta", config=CONFIG)


def test_a_run_beside_one_of_other_results_in_the_same_folder_is_not_repeated_by_the_next(project):
    write_samples(project)
    lock = project.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/demo2/chunks/1-of-2.arrow\nresults/demo2/manifest.parquet\n")
    project.passes(*MERGE, config=CONFIG)
    again = project.passes("--dry-run", *MERGE, config=CONFIG).output
    assert "Nothing to be done" in again
    lock.write_text("results/demo/manifest.parquet\n")
    stamp = (project.results / "settings/embed.txt").read_text()
    assert "--unlock" in project.fails(*MERGE, config=(*CONFIG, "layers=0")).output
    assert (project.results / "settings/embed.txt").read_text() == stamp


@pytest.fixture
def copied(project, undisturbed):
    """The undisturbed project in a folder of its own, times kept."""
    write_samples(project)
    shutil.copytree(undisturbed.folder, project.folder, dirs_exist_ok=True)
    return project


def lose_power(path: Path, kept: float):
    """Cut a file as a loss of power may do: its name and time are there, its end is not."""
    before = path.stat()
    os.truncate(path, int(kept * before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("cut", "lost", "rule", "message"),
    [
        pytest.param("chunks/1-of-2.arrow", [], "merge_sample", "not a whole file of chunk", id="chunk"),
        pytest.param("manifest.parquet", [], "merge_sample", "not a whole manifest", id="manifest"),
        pytest.param("chunks/2-of-2.fasta", ["chunks/2-of-2.arrow"], "embed_chunk", "the file was changed", id="fasta"),
        pytest.param("embeddings/s.parquet", [], "validate", "not a whole Parquet file", id="sample"),
        pytest.param("chunks/1-of-2.json", [], "validate", "not a whole JSON file", id="statistics"),
    ],
)
def test_a_truncated_file_stops_the_run_with_its_name_and_the_remedy_helps(
    copied, undisturbed, cut, lost, rule, message
):
    folder = copied.folder / "results" / "demo"
    lose_power(folder / cut, 0.6)
    for name in (*lost, "validation/summary.json" if rule == "validate" else "embeddings/s.parquet"):
        (folder / name).unlink()
    until = ("--until", "validate") if rule == "validate" else MERGE
    done = copied.fails(*until, config=CONFIG)
    (line, *_) = [line for line in done.output.splitlines() if f"{rule}.py: error: " in line]
    assert f"results/demo/{cut}" in line and message in line and "remove it and run again" in line
    (folder / cut).unlink()
    copied.passes(*until, config=CONFIG)
    assert beside_chunks(contents(copied.folder)) == beside_chunks(undisturbed.all)


def test_a_fasta_cut_between_two_records_is_noticed_and_the_remedy_helps(copied, undisturbed):
    """Nothing in the file is wrong then, but the manifest knows what is missing."""
    chunks = copied.folder / "results/demo/chunks"
    text = (chunks / "2-of-2.fasta").read_text()
    lose_power(chunks / "2-of-2.fasta", text.rindex(">") / len(text))
    for path in (chunks / "2-of-2.arrow", copied.folder / "results/demo/embeddings/s.parquet"):
        path.unlink()
    done = copied.fails(*MERGE, config=CONFIG)
    assert "2-of-2.arrow, row" in done.output and "remove it, and the FASTA file of the chunk beside it" in done.output
    for name in ("2-of-2.arrow", "2-of-2.fasta"):
        (chunks / name).unlink()
    copied.passes(*MERGE, config=CONFIG)
    assert beside_chunks(contents(copied.folder)) == beside_chunks(undisturbed.all)


@pytest.fixture
def small_disk(project):
    """A file system of its own that is filled up but for some KB."""
    disk = project.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_stops_the_run_in_one_line_and_the_next_with_room_finishes(project, undisturbed, small_disk):
    write_samples(project)
    config = (f"samples={project.folder}/samples.tsv", *CONFIG)
    project.passes("--directory", str(small_disk), "--until", "look_up", config=config)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - SPARE))
    done = project.fails(*MERGE, "--directory", str(small_disk), config=config)
    assert "No space left on device; make room and run again" in done.output
    assert "Traceback" not in done.output
    assert not list((small_disk / "results").rglob("*.partial"))
    ballast.unlink()
    project.passes(*MERGE, "--directory", str(small_disk), config=config)
    assert contents(small_disk) == undisturbed.merged
