"""The programs that rules run."""

import os
import sys
from pathlib import Path


def put_running_python_first() -> None:
    """Make `python` in child processes the running interpreter, even if its environment is not activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
