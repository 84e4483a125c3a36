"""Leases: a GPU for each job, more jobs wait, a killed job frees its GPU. No GPU is needed: indices are names.

And where something else stands under the name of a lock, or the wait does not end.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import ROOT
from packed_esm.errors import GpuLeaseError
from packed_esm.system import gpu_lease
from packed_esm.system.gpu_lease import leased_gpu

HOLD = """
import sys, time, pathlib
sys.path.insert(0, {library!r})
from packed_esm.system import gpu_lease
gpu_lease.SECONDS_BETWEEN_TRIES = 0.05
import os
os.setuid({user})
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


def job(folder, gpus, seconds, user=None):
    user = os.getuid() if user is None else user
    code = HOLD.format(library=str(ROOT / "workflow"), gpus=gpus, folder=str(folder), seconds=seconds, user=user)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )


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
    own, shared = names("0", tmp_path)
    assert shared.stat().st_mode & 0o777 == 0o444  # readable is enough to lock it, writable by no one
    assert own.stat().st_mode & 0o777 == 0o400  # no one else can hold it


def names(gpu, folder, user=None):
    user = os.getuid() if user is None else user
    return folder / f"packed_esm.gpu{gpu}.user{user}.lock", folder / f"packed_esm.gpu{gpu}.lock"


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


OBSTACLES = {
    "FIFO": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "directory": lambda path: path.mkdir(),
    "socket": unix_socket,
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(gpu_lease, "SECONDS_BETWEEN_TRIES", 0.01)
    monkeypatch.setattr(gpu_lease, "LONGEST_WAIT", 0.2)


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("which", [0, 1], ids=["own", "shared"])
def test_what_is_no_lock_file_is_said_once_and_the_other_name_keeps_two_jobs_apart(
    tmp_path, quick, caplog, monkeypatch, obstacle, which
):
    path = names("0", tmp_path)[which]
    OBSTACLES[obstacle](path)
    with leased_gpu(["0"], tmp_path) as gpu:
        assert gpu == "0"
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith(f"GPU 0: its lock file {path} cannot be used (")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # as for another job
        with leased_gpu(folder=tmp_path) as other:
            assert other == "1"
        with (
            pytest.raises(GpuLeaseError, match="all 2 GPUs were leased to others"),
            leased_gpu(["0", "0"], tmp_path),
        ):
            pass


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_gpu_without_a_lock_file_is_left_out_and_without_any_the_job_ends_at_once(tmp_path, obstacle):
    for path in names("0", tmp_path):
        OBSTACLES[obstacle](path)
    with leased_gpu(["0", "1"], tmp_path) as gpu:
        assert gpu == "1"
    begin = time.monotonic()
    with pytest.raises(GpuLeaseError, match=r"no lock file of a GPU can be used \(.*gpu0.lock: .*remove them, let TMP"):
        leased_gpu(["0"], tmp_path).__enter__()
    assert time.monotonic() - begin < 5


def test_the_wait_ends_and_names_the_files(tmp_path, quick):
    other = job(tmp_path, ["0"], 600)
    other.stdout.readline()
    message = r"all 1 GPUs were leased to others for 0 hours; see who holds .*user\d+.lock, .*gpu0.lock .*TMPDIR"
    with pytest.raises(GpuLeaseError, match=message):
        leased_gpu(["0"], tmp_path).__enter__()
    other.kill()
    other.communicate()
    descriptors = Path(f"/proc/{os.getpid()}/fd")
    assert not [one for one in descriptors.iterdir() if one.exists() and tmp_path in one.resolve().parents]
    with leased_gpu(["0"], tmp_path) as gpu:
        assert gpu == "0"


def test_where_the_file_system_has_no_locks_it_says_so(tmp_path, monkeypatch):
    def no_locks(lock, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(GpuLeaseError, match="No locks available"):
        leased_gpu(["0"], tmp_path).__enter__()


def test_a_name_with_a_slash_stays_in_the_folder(tmp_path):
    with leased_gpu(["MIG-GPU-1/2/0"], tmp_path) as gpu:
        assert gpu == "MIG-GPU-1/2/0"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in names("MIG-GPU-1%2F2%2F0", tmp_path)}


@pytest.fixture
def shared_folder():
    """A folder as /tmp is: everyone's, and sticky."""
    if os.getuid():
        pytest.skip("needs root, to be two other users in turn")
    folder = Path(tempfile.mkdtemp(prefix="lease"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


ONE, OTHER = 65533, 65534  # users


def test_jobs_of_two_users_do_not_share_a_gpu(shared_folder):
    first = job(shared_folder, ["0", "1"], 0, ONE)
    second = job(shared_folder, ["0", "1"], 0, OTHER)
    assert {first.stdout.readline(), second.stdout.readline()} == {"0\n", "1\n"}
    (shared_folder / "go").touch()
    assert [one.wait(timeout=60) for one in (first, second)] == [0, 0]
    assert shared_folder.joinpath("packed_esm.gpu0.lock").stat().st_uid in (ONE, OTHER)


@pytest.mark.parametrize("which", [0, 1], ids=["own", "shared"])
def test_a_lock_file_that_another_user_keeps_shut_is_left_out(shared_folder, which):
    path = names("0", shared_folder, OTHER)[which]
    path.touch(0o000)
    os.chown(path, ONE, ONE)
    first = job(shared_folder, ["0"], 0, OTHER)
    assert first.stdout.readline() == "0\n"
    second = job(shared_folder, ["0", "1"], 0, OTHER)
    assert second.stdout.readline() == "1\n"
    (shared_folder / "go").touch()
    assert [one.wait(timeout=60) for one in (first, second)] == [0, 0]


def test_a_folder_that_a_user_cannot_write_to_ends_the_job_at_once(shared_folder):
    shared_folder.chmod(0o755)
    closed = job(shared_folder, ["0"], 0, OTHER)
    _, errors = closed.communicate(timeout=60)
    assert "GpuLeaseError: no lock file of a GPU can be used" in errors and "Permission denied" in errors
