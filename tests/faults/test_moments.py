"""Bad moments: no room, no right to write, signals, two runs at once, broken kernels, a GPU that fails."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import ROOT
from packed_esm.embedding.embedder import Embedder
from packed_esm.model import backends
from packed_esm.model.backends import choose_backend
from workflow.conftest import Project, proteins

from .table import Row, held_by
from .test_files_between import EMBED, run, runs  # noqa: F401 (fixtures)

TITLE = "Bad moments"
ONE_LINE = "stops in one line with file and remedy; nothing half-written"
FULL = {
    name: Row(f"no room: {name}", ONE_LINE, words="File too large; make room and run again")
    for name in ("validate.py", "make_report.py")
}
READ_ONLY = Row(
    "an output folder that cannot be written to",
    ONE_LINE,
    words="Cannot be written to; make it writable",
    varies=r"\[Errno \d+\]",
)
SIGNALS = {
    signal.SIGTERM: Row("SIGTERM while a file is written", "ends with 143; nothing half-written, no traceback"),
    signal.SIGINT: Row("SIGINT (Ctrl-C) while a file is written", "ends with 130 in one line; nothing half-written"),
}
TWO_RUNS = Row(
    "two runs at once in one folder", "the second stops and names the lock; the first finishes", words="lock"
)
FUTURE = Row(
    "a FASTA with a time in the future",
    "Snakemake stops and names file and times; after `touch` the run passes",
    words="has older modification time",
    varies=r"\(.*?\)|\d+",
)
BROKEN = [
    Row("flash-attn with an undefined symbol", "auto takes another kernel and warns once, with the reason", "raise ImportError('undefined symbol: _ZN3c10')", "ImportError: undefined symbol"),
    Row("flash-attn of another ABI", "auto takes another kernel and warns once, with the reason", "raise OSError('libcudart.so.11.0: cannot open shared object file')", "OSError: libcudart"),
    Row("flash-attn whose operators torch refuses", "auto takes another kernel and warns once, with the reason", "raise RuntimeError('operator already registered')", "RuntimeError: operator"),
    Row("flash-attn without the function (another version)", "auto takes another kernel and warns once, with the reason", "", "AttributeError: module 'flash_attn' has no attribute"),
]  # fmt: skip
NO_VARLEN = Row(
    "a torch without varlen attention",
    "auto takes sdpa; by name it is refused with the reason",
    words="does not import (ModuleNotFoundError",
)
CUDA_ERROR = Row("a CUDA error in the middle", "the job stops in one line with a remedy; nothing is written", words="CUDA error: an illegal memory access was encountered; the GPU or its driver failed")  # fmt: skip
ROWS = [
    held_by("no room: chunk_fasta.py, embed_chunk.py, merge_sample.py", ONE_LINE + "; with room it passes", "scripts/test_programs.py::test_without_room_it_is_one_line_and_nothing_half_written_and_with_room_it_passes"),
    *FULL.values(),
    held_by("no room, through snakemake", "the run stops in one line; the next with room finishes", "workflow/test_restart.py::test_a_full_disk_stops_the_run_in_one_line_and_the_next_with_room_finishes"),
    READ_ONLY,
    *SIGNALS.values(),
    held_by("something else under the name of a GPU's lock file", "said once; the other name keeps two jobs apart", "unit/system/test_gpu_lease.py::test_what_is_no_lock_file_is_said_once_and_the_other_name_keeps_two_jobs_apart"),
    held_by("no usable lock file of any GPU", "the job ends at once and says why", "unit/system/test_gpu_lease.py::test_a_gpu_without_a_lock_file_is_left_out_and_without_any_the_job_ends_at_once"),
    held_by("a partial file of a process with this job's own number", "removed", "unit/system/test_files.py::test_what_an_earlier_process_of_this_number_left_is_removed"),
    held_by("a mistake of a user, in a local run", "runs once", "faults/test_moments.py::test_a_mistake_is_not_tried_again"),
    held_by("one wrong bit of a vector, where all sequences are repeated", "the job fails and names sequence and device", "unit/embedding/test_repeat.py::test_one_wrong_bit_of_any_sequence_is_noticed_where_all_are_repeated"),
    held_by("SIGKILL at any moment, of a job or of all", "the next run finishes as if nothing had been", "workflow/test_restart.py::test_a_run_killed_again_and_again_ends_as_if_nothing_had_been"),
    held_by("the lock that a killed run leaves", "is named with its remedy", "workflow/test_restart.py::test_the_lock_that_a_killed_run_leaves_is_named_with_its_remedy"),
    TWO_RUNS,
    FUTURE,
    *BROKEN,
    NO_VARLEN,
    held_by("device: cuda where torch sees none", "stops with what to look at", "unit/embedding/test_device.py::test_cuda_where_there_is_none_says_what_to_do"),
    held_by("a GPU older than the kernels, or fp32", "auto takes sdpa; by name it is refused with the reason", "unit/model/test_attention.py::test_old_gpus_and_fp32_fall_to_exact_attention"),
    held_by("out of GPU memory", "the chunk starts again with half the budget, and says so", "unit/embedding/test_embedder.py::test_out_of_memory_starts_the_chunk_again_with_half_the_budget"),
    held_by("a sequence that does not fit a GPU alone", "the job fails and names it (no run without it is a success); other chunks finish with --keep-going", "unit/embedding/test_embedder.py::test_out_of_memory_starts_the_chunk_again_with_half_the_budget"),
    held_by("out of GPU memory while a sequence is recomputed in fp32", "the job fails and names it", "unit/embedding/test_embedder.py::test_no_memory_to_recompute_names_the_sequence"),
    CUDA_ERROR,
    held_by("values that overflow fp16", "recomputed in fp32, and said", "unit/embedding/test_embedder.py::test_values_that_are_not_finite_are_recomputed_in_fp32"),
    held_by("values that are not finite even in fp32", "the job fails and names the sequence", "unit/embedding/test_embedder.py::test_a_broken_checkpoint_fails_even_in_fp32"),
]  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_no_room(run, program, tmp_path, seen, name):  # noqa: F811
    files = {
        "validate.py": "--sample s s.fasta s.parquet --manifest m.parquet --stats 1.json 2.json --table new.tsv "
        f"--summary new.json --sequences 3 {' '.join(EMBED)}",
        "make_report.py": f"--captions {ROOT / 'workflow/report'} --sample s s.parquet --manifest m.parquet --counts c.json --rejected r.tsv --stats 1.json "
        "2.json --validation v.json --validation-table v.tsv --figures new --html new.html",
    }
    before = set(tmp_path.iterdir())
    done = program(name.removesuffix(".py"), *files[name].split(), most_bytes=100)
    assert done.status == 1 and FULL[name].words in done.last and "Traceback" not in done.err, done.err
    left = {path for path in set(tmp_path.rglob("*")) - before if path.is_file() and "new" in str(path)}
    assert not left
    seen(FULL[name], done.last)


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written to, by its mode; for root, who may all the same, by its file system."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.getuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("root needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_to(tmp_path, read_only, program, seen):
    (tmp_path / "s.fasta").write_text(">a\nMKV\n")
    outputs = "--chunks read_only/chunks/1.fasta --manifest m.parquet --rejected r.tsv --counts c.json"
    done = program("chunk_fasta", "--sample", "s", "s.fasta", *outputs.split())
    assert done.status == 1 and READ_ONLY.words in done.last and "read_only" in done.last
    seen(READ_ONLY, done.last.replace(str(tmp_path) + "/", ""))


WRITING = """
import argparse, sys, time
sys.path.insert(0, sys.argv.pop())
import _program
from packed_esm.system.files import replacing
def work(args):
    with replacing("out.txt") as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
sys.exit(_program.run(argparse.ArgumentParser(prog="program"), work, []))
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_a_file_is_written(tmp_path, seen, number):
    command = [sys.executable, "-c", WRITING, str(ROOT / "workflow" / "scripts")]
    as_in_a_terminal = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a job in the background ignores it)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal)  # fmt: skip
    assert process.stdout.readline() == "writing\n" and len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert not list(tmp_path.iterdir()) and "Traceback" not in errors
    seen(SIGNALS[number], f"status {process.returncode} {errors}")


def test_two_runs_at_once(tmp_path, seen):
    project = Project(tmp_path)
    project.write_samples(s=proteins(4))
    first = subprocess.Popen(**project.command("--until", "merge_samples"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not list((tmp_path / ".snakemake" / "locks").glob("*")):
        assert first.poll() is None
        time.sleep(0.02)
    done = project.fails("--until", "merge_samples")
    assert first.wait(timeout=300) == 0 and len(project.embeddings("s")) == 4
    said = [line for line in done.output.splitlines() if TWO_RUNS.words in line.lower()]
    seen(TWO_RUNS, max(said, key=len))


@pytest.mark.parametrize(
    ("rule", "config"),
    [("chunk_fasta", ()), ("embed_chunk", ("model=mine.pt", "chunks=1"))],
    ids=["no FASTA", "no checkpoint"],
)
def test_a_mistake_is_not_tried_again(tmp_path, rule, config):
    project = Project(tmp_path)
    project.write_samples(s=proteins(2) if rule == "embed_chunk" else "no FASTA\n")
    (tmp_path / "mine.pt").write_bytes(b"no checkpoint")
    done = project.fails("--until", rule, config=config)
    assert done.output.count(f"{rule}.py: error: ") == done.output.count(f"Error in rule {rule}") == 1, done.output
    assert "restart" not in done.output


def test_no_profile_and_no_rule_tries_a_job_again():
    """A mistake of a user would be tried again too; who wants it says --retries."""
    workflow = ROOT / "workflow"
    profiles = {path.parent.name: yaml.safe_load(path.read_text()) for path in workflow.glob("profiles/*/profile.yaml")}
    assert profiles.keys() == {"default", "slurm", "cluster-generic"}
    assert not [name for name, profile in profiles.items() if "retries" in profile]
    assert not [path for path in workflow.rglob("*.smk") if "retries" in path.read_text()]


def test_a_time_in_the_future(tmp_path, seen):
    project = Project(tmp_path)
    project.write_samples(s=proteins(4))
    tomorrow = time.time() + 86_400
    os.utime(tmp_path / "s.fasta", (tomorrow, tomorrow))
    done = project.fails("--until", "chunk_fasta")
    (line, *_) = [line for line in done.output.splitlines() if FUTURE.words in line]
    (tmp_path / "s.fasta").touch()
    project.passes("--until", "chunk_fasta")
    seen(FUTURE, line)


@pytest.fixture
def other_kernels(monkeypatch):
    """A GPU with compute capability 8.0 where Triton is not, as far as the choice of a backend can see."""
    monkeypatch.setattr(backends, "why_no_triton", lambda device: "it is not installed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    for cached in (backends.kernel_of, backends._warn_flash_attn_missing):
        cached.cache_clear()
    yield
    backends.kernel_of.cache_clear()


@pytest.mark.parametrize("row", BROKEN, ids=str)
def test_a_broken_flash_attn(tmp_path, monkeypatch, other_kernels, caplog, seen, row):
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(row.given)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = {choose_backend("auto", torch.device("cuda"), torch.float16) for _ in range(3)}
    (warning,) = [r.getMessage() for r in caplog.records if "flash-attn is not used" in r.getMessage()]
    assert chosen <= {"torch-varlen", "sdpa"} and len(chosen) == 1 and row.words in warning
    with pytest.raises(ValueError, match="attention: flash-attn cannot be used, it does not import"):
        choose_backend("flash-attn", torch.device("cuda"), torch.float16)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    seen(row, warning)


def test_a_torch_without_varlen(monkeypatch, other_kernels, seen):
    for module in ("torch.nn.attention.varlen", "flash_attn"):
        monkeypatch.setitem(sys.modules, module, None)
    assert choose_backend("auto", torch.device("cuda"), torch.float16) == "sdpa"
    with pytest.raises(ValueError) as error:
        choose_backend("torch-varlen", torch.device("cuda"), torch.float16)
    assert NO_VARLEN.words in str(error.value)
    seen(NO_VARLEN, str(error.value))


def test_a_cuda_error_in_the_middle(tmp_path, program, monkeypatch, seen):
    (tmp_path / "s.fasta").write_text(">a\nMKV\n")

    def fails(*args, **options):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Embedder, "_start", fails)
    done = program("embed_chunk", "--fasta", "s.fasta", "--out", "s.arrow", "--stats", "s.json", *EMBED)
    assert done.status == 1 and CUDA_ERROR.words in done.last
    assert [path.name for path in tmp_path.iterdir()] == ["s.fasta"]
    seen(CUDA_ERROR, done.last)
