"""The memory that is still free: that of the machine, of the job's control group, and of those above it."""

import pytest
from packed_esm.system import memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8,000 kB free, and a process in the group /jobs/7."""
    for name in ("MEMINFO", "OWN_CGROUP", "CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    (tmp_path / "MEMINFO").write_text("MemTotal:  16000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "OWN_CGROUP").write_text("1:name=x:/old\n0::/jobs/7\n")
    (tmp_path / "CGROUPS/jobs/7").mkdir(parents=True)
    return tmp_path


def limit(group, most, used, of_files):
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {of_files}\n")


def test_it_is_the_least_of_the_machine_and_of_every_group(machine):
    assert memory.available_memory() == 8_192_000
    limit(machine / "CGROUPS/jobs/7", "max", 10, 0)
    assert memory.available_memory() == 8_192_000
    limit(machine / "CGROUPS/jobs", 5000, 3000, 1000)
    assert memory.available_memory() == 3000
    limit(machine / "CGROUPS/jobs/7", 2000, 500, 100)
    assert memory.available_memory() == 1600


def test_a_system_that_says_nothing_gives_none(machine):
    for name in ("MEMINFO", "OWN_CGROUP"):
        (machine / name).unlink()
    assert memory.available_memory() is None


def test_this_machine_has_some():
    found = memory.available_memory()
    assert found is None or found > 10**6
