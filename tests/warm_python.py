"""A Python that starts at once: each of its processes is a fork of one that has imported the dependencies.

Importing torch, pandas, matplotlib and Snakemake takes most of the seconds of a small run, once in each job. The
workflow's own code is not among what is imported before: each process imports it from where it runs.
"""

import atexit
import fcntl
import functools
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from pathlib import Path

MODULES = (
    *("anndata", "Bio.SeqIO.FastaIO", "esm", "h5py", "jinja2", "jsonschema", "matplotlib.pyplot", "pyarrow.ipc"),
    *("pyarrow.parquet", "safetensors.torch", "sklearn.decomposition", "torch", "tqdm", "umap", "xxhash", "yaml"),
    *("snakemake.cli", "snakemake.executors.local", "snakemake.report", "snakemake.report.html_reporter", "pulp"),
)
ABOVE = 100  # more descriptors than a process is given

# Hands its arguments, environment, folder and descriptors to the server, and ends as the process there ends.
CLIENT = """#!{python} -ISE
import json, os, signal, socket, sys

arguments = sys.argv[1:]
if not arguments or arguments[0].startswith("-") and arguments[0] != "-m":
    os.execv({python!r}, [{python!r}, *arguments])


def is_given(descriptor):
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the one of the list itself
        return False


given = [number for number in map(int, os.listdir("/dev/fd")) if is_given(number)]
request = {{"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ), "descriptors": given}}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [b"."], given)
    connection.sendall(json.dumps(request).encode())
    connection.shutdown(socket.SHUT_WR)
    answer = connection.recv(1)
sys.exit(answer[0] if answer else 128 + signal.SIGKILL)
"""


@functools.cache
def warm_python() -> str:
    """Start the server, once; return the path of an executable for `SCRIPT ARGUMENTS` and `-m MODULE ARGUMENTS`."""
    folder = Path(tempfile.mkdtemp(prefix="python-"))
    address, executable = folder / "socket", folder / "python"
    executable.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    executable.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(16)
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listening.fileno()), str(executable)],
            pass_fds=[listening.fileno()],
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # a fork has none of the threads of a pool
            start_new_session=True,
        )
    atexit.register(stop, server, folder)
    return str(executable)


def stop(server: subprocess.Popen, folder: Path) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    shutil.rmtree(folder)


def serve(descriptor: int, executable: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    sys.executable = executable
    with socket.socket(fileno=descriptor) as listening:
        while True:
            connection, _ = listening.accept()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
                    pass
            if not os.fork():
                listening.close()
                become(socket.socket(fileno=fcntl.fcntl(connection.detach(), fcntl.F_DUPFD_CLOEXEC, ABOVE)))
            connection.close()


def become(connection: socket.socket) -> None:
    """Become the process that is asked for, and say how it ended."""
    _, given, _, _ = socket.recv_fds(connection, 1, ABOVE)
    with connection.makefile("rb") as file:
        request = json.load(file)
    given = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ABOVE) for descriptor in given]
    for descriptor, number in zip(given, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    status = run(*request["arguments"])
    connection.sendall(bytes([status & 255]))
    os._exit(0)


def run(first: str, *arguments: str) -> int:
    """Run a script, or a module after `-m`, as `python` does; return the exit status."""
    try:
        if first == "-m":
            module, *arguments = arguments
            sys.argv = [module, *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *arguments]
            sys.path.insert(0, str(Path(first).resolve().parent))
            runpy.run_path(first, run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
