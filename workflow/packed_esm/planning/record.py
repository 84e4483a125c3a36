"""What the results of a model were asked for, as `settings.json` beside them keeps it, and what is asked otherwise now.

Snakemake knows the settings of a file from its own folder `.snakemake`, which can be lost, and the age of its inputs,
which can lie. So each stage of the workflow (`chunk`, `embed` ...) has its settings and the files that it reads in this
record, and a stamp: a small file that is an input of its jobs, and that is written anew when one of them changes.

A file is the same as long as device, inode, size and both times are; else its sha256 decides, where a job or an earlier
start has made it. Reads no more than that, and needs the standard library alone.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError
from ..system.files import sha256, write_text


@dataclass(frozen=True)
class Source:
    """What a stage reads: a file, or the files of one checkpoint, which need not be there yet.

    Attributes:
        paths: of the files, in order.
        fixed: results of another one are refused, not made again, where it comes from another path.
    """

    paths: tuple[Path, ...]
    fixed: bool = False

    def identity(self) -> list[list[int]] | None:
        """Return device, inode, size, mtime_ns and ctime_ns of each file; None where one is not there."""
        try:
            stats = [path.stat() for path in self.paths]
        except FileNotFoundError:
            return None
        return [[s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in stats]

    def digest(self) -> str:
        """Return the sha256 of the file; of several, that of their names and sha256 (`checkpoint_sha256`)."""
        if len(self.paths) == 1:
            return sha256(self.paths[0])
        return hashlib.sha256("".join(f"{p.name} {sha256(p)}\n" for p in self.paths).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """What a stage is asked for: settings (plain JSON values) and {name: source}."""

    settings: dict
    sources: Mapping[str, Source] = field(default_factory=dict)


def read_record(path: Path) -> dict:
    """Return the record, {stage: {"settings", "sources", "stamp"}}; empty where there is none or it is no JSON."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def said_in(path: Path, *keys: str) -> object:
    """Return what a JSON file that a job wrote has under nested keys; None where it has not, or is damaged.

    The job that reads the file names the damage.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value


def write_record(path: Path, record: dict) -> None:
    """Write the record, where it differs from what is there."""
    if record != read_record(path):
        write_text(path, json.dumps(record, indent=2) + "\n")


def compare(
    recorded: Mapping, asked: Mapping[str, Stage], digests: Mapping[str, Mapping[str, str]]
) -> tuple[dict, dict]:
    """Return (the record of what is asked for, {stage: sentences} of what is asked otherwise than recorded).

    Args:
        recorded: of `read_record`; a stage that it lacks gets a new stamp, and no sentence.
        asked: {stage: Stage}, all of them.
        digests: {stage: {source: sha256}} that jobs have made of what they read.

    Raises:
        OptionError: another checkpoint than the recorded one, from another path.
    """
    record, changes = {}, {}
    for name, stage in asked.items():
        before = recorded.get(name, {})
        found = [] if name not in recorded else _differences(before.get("settings", {}), stage.settings)
        sources = {}
        for source_name, source in stage.sources.items():
            known = before.get("sources", {}).get(source_name)
            made = digests.get(name, {}).get(source_name)
            sources[source_name], changed = _compare_source(source_name, known, source, made)
            found += changed
        stamp = before["stamp"] if "stamp" in before and not found else uuid.uuid4().hex
        record[name] = {"settings": stage.settings, "sources": sources, "stamp": stamp}
        if found:
            changes[name] = found
    return record, changes


def write_stamps(folder: Path, record: Mapping, elsewhere: Path | None = None) -> dict[str, str]:
    """Write the stamp of each stage, `folder/{stage}.txt`, where it is not there as recorded; return {stage: path}.

    With `elsewhere` what would be written goes there, and the folder stays as it is.
    """
    paths = {}
    for stage, entry in record.items():
        path, text = folder / f"{stage}.txt", f"{entry['stamp']}\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path = path if elsewhere is None else elsewhere / path.name
            write_text(path, text)
        paths[stage] = str(path)
    return paths


def not_expected(folder: Path, expected: Iterable[str]) -> list[str]:
    """Return the files below `folder` that are neither expected nor in an expected folder, sorted.

    Args:
        folder: of the results of one model.
        expected: paths of files and folders below it.
    """
    wanted = {Path(path) for path in expected}
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and not wanted & {path, *path.parents}
    )


def _compare_source(name: str, known: Mapping | None, source: Source, made: str | None) -> tuple[dict, Sequence[str]]:
    """Return (entry of the record, sentences of what changed) of a source; `made`: the digest that a job made."""
    identity = source.identity()
    entry = {"path": str(source.paths[0]), "identity": identity, "sha256": None}
    if known is None:
        return entry, []
    if identity is None or known["identity"] in (None, identity):
        return entry | {"sha256": known["sha256"] or (made if known["identity"] == identity else None)}, []
    digest = known["sha256"] or made
    sizes = [[one[2] for one in files] for files in (identity, known["identity"])]
    if digest and sizes[0] == sizes[1]:
        entry["sha256"] = source.digest()
        if entry["sha256"] == digest:
            return entry, []
    if source.fixed and entry["path"] != known["path"]:
        raise OptionError(
            f"model: the results that are there are of another {name} ({known['path']}), not of {entry['path']}; "
            "set `name` to keep both, or move them away"
        )
    return entry, [f"{name}: {entry['path']} is not the file that was read"]


def _differences(one: Mapping, other: Mapping) -> list[str]:
    keys = sorted(one.keys() | other.keys())
    return [f"{key}: {one.get(key)!r} / {other.get(key)!r}" for key in keys if one.get(key) != other.get(key)]
