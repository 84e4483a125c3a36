"""Compare the settings of existing results, recorded in their `settings.json`, with the present ones.

Snakemake decides what to run again by its folder `.snakemake`, which can be lost, and by the times of files, which can
be wrong. So this record has the settings and the input files of each stage of the workflow (`chunk`, `embed` ...). Each
stage also has a stamp: a small file that is an input of its jobs, and that is rewritten when one of those changes.

A file is unchanged if its device, inode, size and both times are. Otherwise its sha256 decides, if a job or an earlier
start has computed it. No file is read otherwise, except small ones.
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
    """An input of a stage: a file, or the files of one checkpoint, which need not exist yet.

    Attributes:
        paths: of the files, in order.
        fixed: if it changes and has another path, existing results are refused instead of being made again.
        small: its sha256 is computed at each start, because no job records it.
    """

    paths: tuple[Path, ...]
    fixed: bool = False
    small: bool = False

    def identity(self) -> list[list[int]] | None:
        """Return device, inode, size, mtime_ns and ctime_ns of each file; None if one is missing."""
        identities = [file_identity(path) for path in self.paths]
        return None if None in identities else identities

    def digest(self) -> str:
        """Return the sha256 of the file; for several, that of their names and sha256 (`checkpoint_sha256`)."""
        if len(self.paths) == 1:
            return sha256(self.paths[0])
        return hashlib.sha256("".join(f"{p.name} {sha256(p)}\n" for p in self.paths).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """The settings (plain JSON values) and inputs, {name: source}, of a stage."""

    settings: dict
    sources: Mapping[str, Source] = field(default_factory=dict)


def read_record(path: Path) -> dict:
    """Return the record, {stage: {"settings", "sources", "stamp"}}; empty if it is missing or invalid."""
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


def write_record(path: Path, record: dict) -> None:
    """Write the record if it differs from the existing one."""
    if record != read_record(path):
        write_text(path, json.dumps(record, indent=2) + "\n")


def compare(
    recorded: Mapping, stages: Mapping[str, Stage], digests: Mapping[str, Mapping[str, str]]
) -> tuple[dict, dict]:
    """Return (the record of the present stages, {stage: sentences on what differs from the old record}).

    Args:
        recorded: from `read_record`; a stage that it lacks gets a new stamp, and no sentence.
        stages: {stage: Stage}, all of them.
        digests: {stage: {source: sha256}} that jobs have computed of their inputs.

    Raises:
        OptionError: the checkpoint differs from the recorded one, and has another path.
    """
    record, changes = {}, {}
    for name, stage in stages.items():
        before, computed = recorded.get(name), digests.get(name, {})
        record[name], found = _compare_stage(stage, before, computed)
        if found and "previous" in before:
            back, differing = _compare_stage(stage, before["previous"], computed)
            record[name], found = (record[name], found) if differing else (back, ["as before the last change"])
        if found:
            changes[name] = found
            record[name]["previous"] = {key: value for key, value in before.items() if key != "previous"}
        elif before and "previous" in before:
            record[name]["previous"] = before["previous"]
    return record, changes


def _compare_stage(stage: Stage, before: Mapping | None, computed: Mapping[str, str]) -> tuple[dict, list[str]]:
    """Return (entry of the record, sentences on what changed) of a stage; an unchanged stage keeps its stamp."""
    if before is None:
        sources = {
            name: _compare_source(name, None, source, computed.get(name))[0] for name, source in stage.sources.items()
        }
        return {"settings": stage.settings, "sources": sources, "stamp": uuid.uuid4().hex}, []
    found = _differences(before["settings"], stage.settings)
    sources = {}
    for name, source in stage.sources.items():
        sources[name], changed = _compare_source(name, before["sources"].get(name), source, computed.get(name))
        found += changed
    stamp = uuid.uuid4().hex if found else before["stamp"]
    return {"settings": stage.settings, "sources": sources, "stamp": stamp}, found


def write_stamps(folder: Path, record: Mapping, elsewhere: Path | None = None) -> dict[str, str]:
    """Write the stamp of each stage, `folder/{stage}.txt`, if it is missing or differs; return {stage: path}.

    With `elsewhere`, new stamps are written there, and the folder is not changed.
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
    paths = {Path(path) for path in expected}
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and not paths & {path, *path.parents}
    )


def _compare_source(
    name: str, known: Mapping | None, source: Source, computed: str | None
) -> tuple[dict, Sequence[str]]:
    """Return (entry of the record, sentences on what changed) of a source; `computed`: its digest from a job."""
    identity = source.identity()
    entry = {"path": str(source.paths[0]), "identity": identity, "sha256": None}
    if source.small and identity is not None:
        entry["sha256"] = source.digest()
    if known is None:
        return entry, []
    digest, same_path = known["sha256"] or computed, entry["path"] == known["path"]
    if identity is not None and identity == known["identity"]:
        return entry | {"sha256": digest}, []
    if same_path and (identity is None or (digest is None and known["identity"] is None)):
        return entry | {"sha256": digest}, []  # a rule has yet to create it, or has created it since
    if digest and identity is not None and _sizes(known["identity"]) in (None, _sizes(identity)):
        entry["sha256"] = source.digest()
        if entry["sha256"] == digest:
            return entry, []
    if source.fixed and digest and not same_path:
        raise OptionError(
            f"model: the existing results belong to another {name} ({known['path']}), not to {entry['path']}; "
            "set `name` to keep both, or move them away"
        )
    return entry, [f"{name}: {entry['path']} is not the file that was read"]


def _sizes(identity: Sequence[Sequence[int]] | None) -> list[int] | None:
    return None if identity is None else [one[2] for one in identity]


def _differences(one: Mapping, other: Mapping) -> list[str]:
    keys = sorted(one.keys() | other.keys())
    return [f"{key}: {one.get(key)!r} / {other.get(key)!r}" for key in keys if one.get(key) != other.get(key)]
