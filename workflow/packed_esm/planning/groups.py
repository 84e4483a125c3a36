"""Groups of samples: one job merges the files of all samples of a group, in one pass over the chunks."""

from collections.abc import Mapping
from pathlib import Path

MOST_GROUPS = 32  # each of them waits for every chunk; more would plan no faster than they merge


def sample_groups(samples: Mapping[str, str], by_size: bool, most: int = MOST_GROUPS) -> list[list[str]]:
    """Return the samples in groups of about equal size, in order; no more groups than `most`, none of them empty.

    Every process of a run must find the same groups, so they depend on nothing that changes while it runs.

    Args:
        samples: {name: path of its FASTA file}.
        by_size: whether the bytes of the FASTA files count, else each sample counts the same, because the files may
            not exist yet.
        most: number of groups. If there are no more samples than that, each is a group of its own.
    """
    if len(samples) <= most:
        return [[sample] for sample in samples]
    sizes = {sample: Path(fasta).stat().st_size if by_size else 1 for sample, fasta in samples.items()}
    total, before = max(1, sum(sizes.values())), 0
    groups: dict[int, list[str]] = {}
    for sample, size in sizes.items():
        middle = before + size / 2
        groups.setdefault(int(middle / total * most), []).append(sample)
        before += size
    return list(groups.values())
