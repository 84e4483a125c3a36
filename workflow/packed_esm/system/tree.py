"""Where the files of the workflow are."""

from pathlib import Path


def tree() -> Path:
    """Return the folder with workflow/, config/ and envs/: a clone, or the copy of one in the installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "tree"
    return installed if installed.is_dir() else package.parents[1]
