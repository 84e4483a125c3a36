"""`packed-esm clean`: list the results that do not belong to a run with these settings, and remove them."""

import argparse
import contextlib
import sys
from pathlib import Path

from ..errors import OptionError
from ..planning.plan import Plan
from ..planning.record import read_record
from ..planning.results import Results
from ..planning.stages import record_path
from ..system.tree import tree
from .settings import settings_there

FOLDERS = ("chunks", "embeddings", "residues", "translated")  # what else lies in results/NAME may be the user's


def main(args: argparse.Namespace) -> int:
    """List the files, ask, and remove them; return 1 where the answer is no."""
    settings = settings_there(args)
    if any(Path(".snakemake/locks").glob("*")):
        raise OptionError("a run is under way here, or was killed; wait for its end, or see docs/restart.md")
    results = Plan(settings, tree() / "workflow").results()
    _check_samples(results)
    folder = Path(results.folder)
    stale = [path for path in map(Path, results.not_expected()) if path.relative_to(folder).parts[0] in FOLDERS]
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
        _remove_empty(path.parent, folder)
    print(f"removed {len(stale):,} files")
    return 0


def _check_samples(results: Results) -> None:
    """Raise OptionError unless the last run in this folder of results had the same samples."""
    recorded = read_record(record_path(results)).get("chunk", {}).get("settings", {}).get("samples", [])
    if recorded != list(results.samples):
        raise OptionError(
            f"{results.folder}: the last run had the samples {', '.join(recorded) or '(none)'}, and this command has "
            f"{', '.join(results.samples)}; give clean the same files and keys as that run"
        )


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
