"""What determines the content of an embedding, and its fingerprint."""

import hashlib
import json

SETTINGS_KEY = b"packed_esm"
LOG_LIKELIHOOD = "log_likelihood"  # a column of one number


def fingerprint(settings: dict) -> str:
    """Return 16 hexadecimal digits that stand for `settings` (plain JSON values)."""
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()[:16]


def to_metadata(settings: dict) -> dict[bytes, bytes]:
    """Return the schema metadata (Arrow, Parquet) that carries `settings` and their fingerprint."""
    return {SETTINGS_KEY: _canonical({"settings": settings, "fingerprint": fingerprint(settings)}).encode()}


def from_metadata(metadata: dict[bytes, bytes] | None) -> dict:
    """Return the settings that `to_metadata` stored.

    Raises:
        ValueError: none there, or settings that do not belong to their fingerprint.
    """
    if SETTINGS_KEY not in (metadata or {}):
        raise ValueError("it has no settings of packed_esm in its metadata")
    stored = json.loads(metadata[SETTINGS_KEY])
    if fingerprint(stored["settings"]) != stored["fingerprint"]:
        raise ValueError(f"its settings do not belong to its fingerprint {stored['fingerprint']}")
    return stored["settings"]


def column_names(settings: dict) -> list[str]:
    """Return the names of the embedding columns, `mean_33` and so on, in their order."""
    pooled = [f"{pooling}_{layer}" for layer in settings["layers"] for pooling in settings["pooling"]]
    return pooled + [name for name in settings.get("include", ()) if name == LOG_LIKELIHOOD]


def differences(one: dict, other: dict) -> list[str]:
    """Return `key: value / other value` for each setting that differs."""
    keys = sorted(one.keys() | other.keys())
    return [f"{k}: {one.get(k)!r} / {other.get(k)!r}" for k in keys if one.get(k) != other.get(k)]


def _canonical(value: dict) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
