"""Leases: a GPU for each job, more jobs wait, a killed job frees its GPU. No GPU is needed: indices are names."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from packed_esm.system import gpu_lease
from packed_esm.system.gpu_lease import leased_gpu

HOLD = """
import sys, time, pathlib
sys.path.insert(0, {library!r})
from packed_esm.system import gpu_lease
gpu_lease.SECONDS_BETWEEN_TRIES = 0.05
with gpu_lease.leased_gpu({gpus!r}, pathlib.Path({folder!r})) as gpu:
    begin = time.time()
    print(gpu, flush=True)
    while not pathlib.Path({folder!r}, "go").exists():
        time.sleep(0.02)
    time.sleep({seconds})
    print(begin, time.time(), flush=True)
"""


@pytest.fixture(autouse=True)
def _no_device_set(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def job(folder, gpus, seconds):
    code = HOLD.format(library=str(ROOT / "workflow"), gpus=gpus, folder=str(folder), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_six_jobs_share_two_gpus_and_a_killed_one_frees_its_own(tmp_path):
    first = [job(tmp_path, ["0", "1"], 0.2) for _ in range(2)]
    held = [j.stdout.readline().strip() for j in first]
    assert sorted(held) == ["0", "1"]
    waiting = [job(tmp_path, ["0", "1"], 0.2) for _ in range(3)]
    victim = job(tmp_path, ["0", "1"], 600)
    (tmp_path / "go").touch()
    victims_gpu = victim.stdout.readline().strip()  # it has a GPU now, and would keep it for ten minutes
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    spans = []
    for gpu, j in zip([*held, None, None, None], [*first, *waiting], strict=True):
        lines = j.communicate(timeout=120)[0].splitlines()
        gpu = gpu or lines.pop(0)
        spans.append((gpu, *map(float, lines[0].split())))
    for gpu in ("0", "1"):
        own = sorted((begin, end) for g, begin, end in spans if g == gpu)
        assert all(end <= begin for (_, end), (begin, _) in zip(own[:-1], own[1:], strict=True)), own
    with leased_gpu([victims_gpu], tmp_path) as gpu:
        assert gpu == victims_gpu


def test_a_lease_shows_one_gpu_to_cuda_and_takes_it_back(tmp_path):
    with leased_gpu(["3"], tmp_path) as gpu:
        assert gpu == "3" == os.environ["CUDA_VISIBLE_DEVICES"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    with leased_gpu(["3"], tmp_path) as again:
        assert again == "3"


def test_a_device_set_by_the_scheduler_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with leased_gpu(["0"], tmp_path) as gpu:
        assert gpu is None and os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7" and not list(tmp_path.iterdir())


def test_of_several_given_gpus_one_is_taken(tmp_path, monkeypatch):
    """As in an allocation of several GPUs: each job must take another one of them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    other = job(tmp_path, ["4"], 5)
    other.stdout.readline()
    with leased_gpu(folder=tmp_path) as gpu:
        assert gpu == "6" == os.environ["CUDA_VISIBLE_DEVICES"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    other.kill()
    other.communicate()


def test_without_a_gpu_nothing_is_leased(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi there
    assert gpu_lease.visible_gpus() == []
    with leased_gpu(folder=tmp_path) as gpu:
        assert gpu is None


def test_the_lock_file_of_another_user_can_be_locked(tmp_path):
    before = os.umask(0o077)
    try:
        with leased_gpu(["0"], tmp_path):
            pass
    finally:
        os.umask(before)
    (lock,) = tmp_path.iterdir()
    assert lock.stat().st_mode & 0o777 == 0o444  # readable is enough to lock it, writable by no one
