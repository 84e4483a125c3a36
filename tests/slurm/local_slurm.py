"""A Slurm of one node with two fake GPUs, for tests: of this user, on the loopback interface, in a folder.

It needs no root and leaves the machine's own Slurm alone: what is in the folder's `bin` says where its
configuration is, because the executor plugin removes SLURM_CONF from the environment.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SECONDS_TO_START = 30

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
PlugStackConfig={folder}/plugstack.conf
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=1
GresTypes=gpu
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=64000 Gres=gpu:2
PartitionName=cpu Nodes=ALL Default=YES
PartitionName=gpu Nodes=ALL
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm and munge that are not installed."""
    return [program for program in (*DAEMONS, *COMMANDS) if shutil.which(program, path=PATH) is None]


@dataclass
class LocalSlurm:
    """A running Slurm; `commands`: the folder of its commands."""

    folder: Path
    commands: Path
    _daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> None:
        """Start a daemon, in the foreground of a process of its own; its log is appended to."""
        environment = os.environ | {"PATH": PATH, "SLURM_CONF": f"{self.folder}/slurm.conf"}
        with (self.folder / f"{name}.log").open("a") as out:
            self._daemons[name] = subprocess.Popen(
                [name, *arguments], env=environment, stdout=out, stderr=subprocess.STDOUT
            )

    def start_controller(self) -> None:
        """Start the controller; it reads what the one before it saved."""
        self.start("slurmctld", "-D")

    def end_controller(self) -> None:
        """End the controller by SIGTERM, as its service is ended; by SIGKILL it would forget up to five seconds."""
        process = self._daemons.pop("slurmctld")
        process.terminate()
        process.wait()

    def stop(self) -> None:
        """End all daemons, the last one first."""
        for process in reversed(self._daemons.values()):
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """Run Slurm in `folder` for the length of the block."""
    host = socket.gethostname().split(".")[0]
    _configure(folder, host)
    slurm = LocalSlurm(folder, folder / "bin")
    try:
        slurm.start("munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in _munge_files(folder).items()))
        slurm.start_controller()
        slurm.start("slurmd", "-D", "-N", host)
        _wait_until_idle(folder)
        yield slurm
    finally:
        slurm.stop()


def _configure(folder: Path, host: str) -> None:
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    conf = SLURM_CONF.format(host=host, user=getpass.getuser(), folder=folder, **ports)
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/nvidia[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "plugstack.conf").touch()
    # Slurm sets CUDA_VISIBLE_DEVICES for device files only, and any will do.
    (folder / "nvidia0").symlink_to("/dev/null")
    (folder / "nvidia1").symlink_to("/dev/zero")
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name, path=PATH)} "$@"\n')
        command.chmod(0o755)
    key = _munge_files(folder)["key-file"]
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)


def _munge_files(folder: Path) -> dict[str, Path]:
    return {
        name: folder / f"munge.{name.split('-')[0]}"
        for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_idle(folder: Path) -> None:
    """Return when the node is idle.

    Raises:
        RuntimeError: it is not, after SECONDS_TO_START; with the end of each daemon's log.
    """
    for _ in range(SECONDS_TO_START * 5):
        found = subprocess.run([folder / "bin/sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
        if found.stdout.split() == ["idle"]:
            return
        time.sleep(0.2)
    logs = "\n".join(f"{name}:\n{(folder / f'{name}.log').read_text()[-2000:]}" for name in DAEMONS)
    raise RuntimeError(f"Slurm did not start in {SECONDS_TO_START} s (sinfo: {found.stdout}{found.stderr})\n{logs}")
