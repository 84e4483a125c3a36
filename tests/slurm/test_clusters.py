"""The workflow on a real Slurm of one machine, with each shipped profile."""

import re
import subprocess
import time

import pytest
from conftest import ROOT
from packed_esm.families import MODELS
from packed_esm.planning import resources

RULES = ("chunk_fasta", "embed_chunk", "merge_sample", "validate", "make_report")
profiles = pytest.mark.parametrize("profile", ["slurm", "cluster-generic"])


def content(folder):
    """Return {path: bytes} of all results but what tells of seconds."""
    timed = re.compile(r"report\.html|throughput\.png|stages\.png|\d+-of-\d+\.json")
    paths = [path for path in (folder / "results").rglob("*") if path.is_file() and not timed.fullmatch(path.name)]
    paths = [path for path in paths if not {"settings", "settings.json"} & {*path.parts}]  # times of files, stamps
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def jobs(slurm, folder):
    """Return (rule, Slurm's record as a dictionary) of each job that ran in a folder."""
    shown = subprocess.run([slurm.commands / "scontrol", "show", "job", "--oneliner"], capture_output=True, text=True)
    records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.stdout.splitlines()]
    ours = [record for record in records if record["WorkDir"] == str(folder)]
    names = [record.get("Comment", record["JobName"]) for record in ours]
    return [(next(rule for rule in RULES if rule in name), record) for name, record in zip(names, ours, strict=True)]


@profiles
def test_results_have_the_bytes_of_a_run_without_a_cluster(runs, profile):
    got, want = content(runs[profile]), content(runs["local"])
    assert got.keys() == want.keys()
    assert [path for path in want if got[path] != want[path]] == []
    for path in (
        "embeddings/domains.parquet",
        "embeddings/enzymes_globins.parquet",
        "manifest.parquet",
        "rejected.tsv",
        "counts.json",
        "chunks/1-of-2.arrow",
        "chunks/2-of-2.arrow",
    ):
        assert f"results/demo/{path}" in want


@profiles
def test_each_job_that_runs_the_model_asks_slurm_for_one_gpu_and_no_other_does(slurm, runs, profile):
    ran = jobs(slurm, runs[profile])
    assert sorted(rule for rule, _ in ran) == sorted([*RULES, "embed_chunk", "merge_sample"])
    gpus = {(rule, re.sub(r".*gpu:", "", record.get("TresPerJob", "0"))) for rule, record in ran}
    assert gpus == {(rule, "1" if rule in ("embed_chunk", "validate") else "0") for rule in RULES}


@profiles
def test_an_embed_job_keeps_the_gpu_that_slurm_gave_it(runs, profile):
    logs = [path.read_text() for path in (runs[profile] / "logs/demo/embed_chunk").iterdir()]
    assert len(logs) == 2
    for log in logs:
        assert re.search(r"CUDA_VISIBLE_DEVICES=[01] is kept", log)


@profiles
def test_jobs_ask_for_memory_and_time_by_the_size_of_their_input(slurm, runs, profile):
    asked = {(r["MinMemoryNode"], r["TimeLimit"]) for rule, r in jobs(slurm, runs[profile]) if rule == "embed_chunk"}
    sizes = [path.stat().st_size for path in (runs[profile] / "results/demo/chunks").glob("*.fasta")]
    memory = [resources.embedding_memory_mb(MODELS["demo"], size, columns=1) for size in sizes]
    minutes = [resources.embedding_minutes(MODELS["demo"], size, gpu=True, threads=8) for size in sizes]
    assert asked == {(f"{mb}M", f"00:{m}:00") for mb, m in zip(memory, minutes, strict=True)}


def test_partitions_come_from_the_users_own_profile(slurm, runs):
    partitions = {(rule, record["Partition"]) for rule, record in jobs(slurm, runs["slurm"])}
    assert partitions == {(rule, "gpu" if rule in ("embed_chunk", "validate") else "cpu") for rule in RULES}


def test_the_status_command_tells_success_failure_and_running(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(slurm.commands), prepend=":")

    def submit(command):
        sbatch = ["sbatch", "--parsable", "--output=/dev/null", f"--chdir={tmp_path}", f"--wrap={command}"]
        return subprocess.run(sbatch, capture_output=True, text=True, check=True).stdout.strip()

    def status(job):
        script = ROOT / "workflow/profiles/cluster-generic/status.sh"
        return subprocess.run([script, job], capture_output=True, text=True, check=True).stdout.strip()

    def final_status(job):
        deadline = time.monotonic() + 60
        while status(job) == "running" and time.monotonic() < deadline:
            time.sleep(0.2)
        return status(job)

    endless = submit("sleep 600")
    assert status(endless) == "running"
    subprocess.run(["scancel", endless], check=True)
    assert final_status(endless) == "failed"
    assert final_status(submit("true")) == "success"
    assert final_status(submit("false")) == "failed"
    assert status("123456") == "failed"
