"""Call Snakemake with the workflow that comes with this package."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import OptionError
from ..system.progress import QUIET
from ..system.tree import tree

_SETTING = re.compile(r"([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?=(.*)", re.DOTALL)
PATH_KEYS = ("samples", "metadata", "model", "reuse")  # their values may be paths


def run(args: argparse.Namespace, for_snakemake: Sequence[str]) -> NoReturn:
    """Become Snakemake, so that its signals and its exit status are those of this process."""
    arguments = snakemake_arguments(args, for_snakemake)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "snakemake", *arguments], environment_of(args))


def environment_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the environment of Snakemake."""
    return {**os.environ, **({} if args.verbose else {QUIET: "1"})}


def snakemake_arguments(args: argparse.Namespace, for_snakemake: Sequence[str] = ()) -> list[str]:
    """Return the arguments of Snakemake for a run."""
    settings = read_settings(args.inputs, args.directory)
    words = ["--snakefile", str(tree() / "workflow" / "Snakefile")]
    words += ["--directory", args.directory] if args.directory else []
    words += ["--sdm", "conda"] if args.conda else []
    words += ["--workflow-profile", "slurm"] if args.slurm else ["--cores", str(args.cores)]
    words += ["--dry-run"] if args.dry_run else []
    words += [] if args.verbose else ["--logger", "packed-esm"]
    words += ["--config", *(f"{key}={value}" for key, value in settings.items())] if settings else []
    return [*words, *for_snakemake]


def read_settings(words: Iterable[str], directory: str = "") -> dict[str, str]:
    """Return {key: value} of words such as `my.fasta` and `key=value`, as Snakemake's --config takes them.

    Files, folders and sheets become the key `samples`, and `section.key=value` becomes a section.

    Args:
        words: of the command line. A word with `=` that is a file is a file.
        directory: where Snakemake will run; paths that are relative to the working directory become absolute.

    Raises:
        OptionError: files and the key `samples`, or the same key twice.
    """
    files, given = [], {}
    for word in words:
        found = None if Path(word).exists() else _SETTING.fullmatch(word)
        if found is None:
            files.append(word)
            continue
        section, key, value = found.groups()
        name = f"{section}.{key}" if key else section
        if name in given:
            raise OptionError(f"{name} is set twice; leave one out")
        given[name] = value
    if files and "samples" in given:
        raise OptionError(f"samples={given['samples']} and {files[0]} both name the input; leave one out")
    if directory:
        files = [str(Path(file).absolute()) for file in files]
        given |= {key: str(Path(given[key]).absolute()) for key in PATH_KEYS if Path(given.get(key, "")).is_file()}
    return ({"samples": json.dumps(files)} if files else {}) | _sections(given)


def _sections(given: Mapping[str, str]) -> dict[str, str]:
    """Return settings in which `section.key` is a key of a section."""
    plain: dict[str, Any] = {name: value for name, value in given.items() if "." not in name}
    sections: dict[str, dict[str, str]] = {}
    for name, value in given.items():
        if "." in name:
            section, key = name.split(".")
            sections.setdefault(section, {})[key] = value
    if both := plain.keys() & sections.keys():
        raise OptionError(f"{both.pop()} is set as a whole and by its keys; choose one way")
    return plain | {section: json.dumps(keys) for section, keys in sections.items()}
