"""`packed-esm clean`: list the results that do not belong to a run with these settings, and remove them."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

import yaml

from ..errors import OptionError
from ..planning.config import read_config
from ..planning.plan import Plan
from ..system.tree import tree
from . import workflow


def main(args: argparse.Namespace) -> int:
    """List the files, ask, and remove them; return 1 where the answer is no."""
    if args.directory:
        os.chdir(args.directory)
    if any(Path(".snakemake/locks").glob("*")):
        raise OptionError("a run is under way here, or was killed; wait for its end, or see docs/restart.md")
    results = Plan(_settings(args), tree() / "workflow").results()
    stale = [Path(path) for path in results.not_expected()]
    if not stale:
        print(f"{results.folder}: nothing to remove; all files belong to this configuration")
        return 0
    for path in stale:
        print(f"{path.stat().st_size / 1e6:>12,.1f} MB  {path}")
    total = sum(path.stat().st_size for path in stale)
    if not (args.yes or _agrees(f"Remove these {len(stale):,} files ({total / 1e6:,.1f} MB)? [y/N] ")):
        return 1
    for path in stale:
        path.unlink()
        _remove_empty(path.parent, Path(results.folder))
    print(f"removed {len(stale):,} files")
    return 0


def _settings(args: argparse.Namespace) -> dict:
    """Return the settings of ./config/config.yaml and of the command line."""
    own = Path("config/config.yaml")
    config = yaml.safe_load(own.read_text(encoding="utf-8")) or {} if own.exists() else {}
    words = workflow.read_settings(args.inputs)
    return read_config(config | words, tree() / "workflow" / "schemas" / "config.schema.yaml")


def _agrees(question: str) -> bool:
    if not sys.stdin.isatty():
        print("nothing was removed; to remove them without a question, add --yes")
        return False
    return input(question).strip().lower() in ("y", "yes")


def _remove_empty(folder: Path, last: Path) -> None:
    """Remove a folder and those above it, up to `last`, as far as they are empty."""
    with contextlib.suppress(OSError):  # not empty
        while folder != last:
            folder.rmdir()
            folder = folder.parent
