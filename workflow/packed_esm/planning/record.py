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
from ..system.files import file_identity, sha256, write_text


@dataclass(frozen=True)
class Source:
    """What a stage reads: a file, or the files of one checkpoint, which need not be there yet.

    Attributes:
        paths: of the files, in order.
        fixed: results of another one are refused, not made again, where it comes from another path.
        small: it is read at each start; no job says what it has read.
    """

    paths: tuple[Path, ...]
    fixed: bool = False
    small: bool = False

    def identity(self) -> list[list[int]] | None:
        """Return device, inode, size, mtime_ns and ctime_ns of each file; None where one is not there."""
        identities = [file_identity(path) for path in self.paths]
        return None if None in identities else identities

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
    """Return the record, {stage: {"settings", "sources", "stamp"}}; empty where there is none that makes sense."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for entry in record.values():
            entries = [entry, *([entry["previous"]] if "previous" in entry else [])]
            sources = [source for one in entries for source in one["sources"].values()]
            if not all(isinstance(one["settings"], dict) and isinstance(one["stamp"], str) for one in entries):
                return {}
            if not all({"path", "identity", "sha256"} <= source.keys() for source in sources):
                return {}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return record


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
        before, made = recorded.get(name), digests.get(name, {})
        record[name], found = _compare_stage(stage, before, made)
        if found and "previous" in before:
            back, differing = _compare_stage(stage, before["previous"], made)
            record[name], found = (record[name], found) if differing else (back, ["as before the last change"])
        if found:
            changes[name] = found
            record[name]["previous"] = {key: value for key, value in before.items() if key != "previous"}
        elif before and "previous" in before:
            record[name]["previous"] = before["previous"]
    return record, changes


def _compare_stage(stage: Stage, before: Mapping | None, made: Mapping[str, str]) -> tuple[dict, list[str]]:
    """Return (entry of the record, sentences of what changed) of a stage; what did not change keeps its stamp."""
    if before is None:
        sources = {
            name: _compare_source(name, None, source, made.get(name))[0] for name, source in stage.sources.items()
        }
        return {"settings": stage.settings, "sources": sources, "stamp": uuid.uuid4().hex}, []
    found = _differences(before["settings"], stage.settings)
    sources = {}
    for name, source in stage.sources.items():
        sources[name], changed = _compare_source(name, before["sources"].get(name), source, made.get(name))
        found += changed
    stamp = uuid.uuid4().hex if found else before["stamp"]
    return {"settings": stage.settings, "sources": sources, "stamp": stamp}, found


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
    if source.small and identity is not None:
        entry["sha256"] = source.digest()
    if known is None:
        return entry, []
    digest, same_path = known["sha256"] or made, entry["path"] == known["path"]
    if identity is not None and identity == known["identity"]:
        return entry | {"sha256": digest}, []
    if same_path and (identity is None or (digest is None and known["identity"] is None)):
        return entry | {"sha256": digest}, []  # yet to be made by a rule, or made since
    if digest and identity is not None and _sizes(known["identity"]) in (None, _sizes(identity)):
        entry["sha256"] = source.digest()
        if entry["sha256"] == digest:
            return entry, []
    if source.fixed and digest and not same_path:
        raise OptionError(
            f"model: the results that are there are of another {name} ({known['path']}), not of {entry['path']}; "
            "set `name` to keep both, or move them away"
        )
    return entry, [f"{name}: {entry['path']} is not the file that was read"]


def _sizes(identity: Sequence[Sequence[int]] | None) -> list[int] | None:
    return None if identity is None else [one[2] for one in identity]


def _differences(one: Mapping, other: Mapping) -> list[str]:
    keys = sorted(one.keys() | other.keys())
    return [f"{key}: {one.get(key)!r} / {other.get(key)!r}" for key in keys if one.get(key) != other.get(key)]
