"""Call Snakemake with the workflow that comes with this package."""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import OptionError
from ..families import MODELS
from ..system.progress import QUIET
from ..system.tree import tree

_SETTING = re.compile(r"([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?=(.*)", re.DOTALL)
PATH_KEYS = ("samples", "metadata", "model", "reuse", "variants", "container")  # their values may be paths


def run(args: argparse.Namespace, for_snakemake: Sequence[str]) -> NoReturn:
    """Become Snakemake, so that its signals and its exit status are those of this process."""
    arguments = snakemake_arguments(args, for_snakemake)  # -P: a module of the user's folder is not one of Python's
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "snakemake", *arguments], environment_of(args))


def environment_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the environment of Snakemake."""
    return {**os.environ, **({} if args.verbose else {QUIET: "1"})}


def snakemake_arguments(args: argparse.Namespace, for_snakemake: Sequence[str] = ()) -> list[str]:
    """Return the arguments of Snakemake for a run.

    Raises:
        OptionError: settings that contradict each other, or `--config` among Snakemake's own options.
    """
    if own := {"--config", "-C"} & set(for_snakemake):
        raise OptionError(f"{own.pop()} after `--` would replace the files and keys before it; write its keys there")
    settings = read_settings(args.inputs, args.directory)
    words = [] if args.verbose else ["--logger", "packed-esm"]
    words += ["--config", *(f"{key}={value}" for key, value in settings.items())] if settings else []
    words += ["--directory", args.directory] if args.directory else []
    deployment = [name for name in ("conda", "apptainer") if getattr(args, name)]
    words += ["--sdm", *deployment] if deployment else []
    words += ["--workflow-profile", "slurm"] if args.slurm else ["--cores", str(args.cores)]
    words += ["--dry-run"] if args.dry_run else []
    # Last, because the options before may take several words, and what follows may begin with a target.
    return [*words, "--snakefile", str(tree() / "workflow" / "Snakefile"), *for_snakemake]


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
        found = None if os.path.exists(word) else _SETTING.fullmatch(word)  # noqa: PTH110 - never raises
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
        given |= {key: _absolute(given[key]) for key in PATH_KEYS if key in given and given[key] not in MODELS}
    samples = {"samples": json.dumps(files, ensure_ascii=False)} if files else {}
    return samples | {key: _as_text(value) for key, value in _sections(given).items()}


def _absolute(value: str) -> str:
    """Return a value, or list with commas, in which what exists has its absolute path."""
    parts = value.split(",")
    return ",".join(str(Path(part).absolute()) if part and os.path.exists(part) else part for part in parts)  # noqa: PTH110


def _as_text(value: str) -> str:
    """Return a value that Snakemake reads as text: 001 stays 001. The schema says where a number is wanted."""
    with contextlib.suppress(ValueError):
        float(value)
        return f"!!str {value}"
    return value


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
    return plain | {section: json.dumps(keys, ensure_ascii=False) for section, keys in sections.items()}
