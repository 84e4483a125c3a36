"""The memory of this machine that a process may still use."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_memory() -> int | None:
    """Return the bytes that are free, or soon would be, within the limits of the job; None where the system is silent.

    A scheduler, or a container, limits a job by its control group (version 2) or one above it. What it has of files in
    memory can be taken from it.
    """
    found = [_free_of_machine(), *(_free_of_group(group) for group in _groups())]
    return min((one for one in found if one is not None), default=None)


def _free_of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _groups() -> list[Path]:
    """Return the control group of this process and all above it."""
    try:
        entries = [line.split("::", 1) for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return []
    paths = [CGROUPS / entry[1].lstrip("/") for entry in entries if len(entry) == 2]
    return [group for path in paths for group in (path, *path.parents) if group.is_relative_to(CGROUPS)]


def _free_of_group(group: Path) -> int | None:
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(kept.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
