"""The settings that determine an embedding, their fingerprint, and the generation of results (`BITS`)."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..errors import EmbeddingFileError
from ..system.files import FileKind

SETTINGS_KEY = b"packed_esm"

# The generation of results. Raise it by one, and run `python tests/golden.py`, if a change of the code may change the
# content of a result for the same input and settings: a bit of an embedding, a frame that is translated, a record
# that is rejected, a column of a file. Then everything runs again, and `reuse` copies no earlier results. Otherwise
# leave it unchanged, also for a new version: then existing results stay valid, and users save hours of GPU time.
BITS = 1


def fingerprint(settings: dict) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of `settings` (plain JSON values)."""
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()[:16]


def to_metadata(settings: dict) -> dict[bytes, bytes]:
    """Return the schema metadata (Arrow, Parquet) with `settings`, their fingerprint, and this version.

    The version is for information; nothing compares it.
    """
    content = {"settings": settings, "fingerprint": fingerprint(settings), "version": __version__}
    return {SETTINGS_KEY: _canonical(content).encode()}


def from_metadata(metadata: dict[bytes, bytes] | None, kind: FileKind, path: Path) -> dict:
    """Return the settings that `to_metadata` stored in a file.

    Raises:
        EmbeddingFileError: there are no settings, or they do not match their fingerprint.
    """
    if SETTINGS_KEY not in (metadata or {}):
        raise kind.damaged(path, "it has no settings of packed_esm in its metadata")
    try:
        stored = json.loads(metadata[SETTINGS_KEY])
    except ValueError as error:
        raise kind.damaged(path, f"its settings: {error}") from error
    if not isinstance(stored, dict) or not stored.keys() >= {"settings", "fingerprint"}:
        raise kind.damaged(path, "its settings have no fingerprint")
    if fingerprint(stored["settings"]) != stored["fingerprint"]:
        raise kind.damaged(path, f"its settings do not match its fingerprint {stored['fingerprint']}")
    return _with_bits(stored["settings"])


def _with_bits(settings: dict) -> dict:
    """Return settings in the present form; up to version 0.3.0 they had the version, `packed_esm`, for `bits`."""
    if "packed_esm" not in settings:
        return settings
    return {"bits": 1} | {key: value for key, value in settings.items() if key != "packed_esm"}


def differences(one: dict, other: dict) -> list[str]:
    """Return `key: value / other value` for each setting that differs."""
    keys = sorted(one.keys() | other.keys())
    return [f"{k}: {one.get(k)!r} / {other.get(k)!r}" for k in keys if one.get(k) != other.get(k)]


def _canonical(value: dict) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


# An out-of-memory may reduce the budget of one job; all other settings must be the same in all jobs.
MAY_DIFFER = {"tokens_per_pack"}


def common_settings(chunk_paths: Sequence[Path], settings_of: Callable[[Path], dict]) -> dict:
    """Return the settings of all chunks, each read by `settings_of`.

    If budgets differ (after an out-of-memory), `tokens_per_pack` is the list of all budgets.

    Raises:
        EmbeddingFileError: the settings of a chunk differ from those of the first.
    """
    every = [settings_of(path) for path in chunk_paths]
    for path, settings in zip(chunk_paths, every, strict=True):
        same = {key: value for key, value in settings.items() if key not in MAY_DIFFER}
        if differing := differences({k: v for k, v in every[0].items() if k not in MAY_DIFFER}, same):
            raise EmbeddingFileError(
                f"{path}: made with other settings than {chunk_paths[0]} ({'; '.join(differing)}); "
                "remove the older of the two and run again"
            )
    budgets = sorted({settings["tokens_per_pack"] for settings in every})
    return every[0] | {"tokens_per_pack": budgets[0] if len(budgets) == 1 else budgets}
