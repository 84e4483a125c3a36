"""Groups of samples: one job merges the files of all samples of a group, in one pass over the chunks."""

from collections.abc import Mapping

from .inputs import fasta_bytes

MOST_GROUPS = 32  # each of them waits for every chunk, and Snakemake looks at every pair
GROUP_BYTES = 1e9  # of merged files; less takes hardly longer than the start of a program
GROUP_SAMPLES = 1000  # Snakemake compares each file that is wanted with each of the rule that makes it


def sample_groups(samples: Mapping[str, str], growth: float | None, most: int = MOST_GROUPS) -> list[list[str]]:
    """Return the samples in groups of about equal size, in order; none of them empty.

    No more samples than `most` are each a group of its own. Every process of a run must find the same groups, so they
    depend on nothing that changes while it runs.

    Args:
        samples: {name: path of its FASTA file}.
        growth: bytes of the merged files for a byte of FASTA. None: the FASTA files may not exist yet, and each sample
            counts the same.
        most: number of groups of about equal bytes. Those with more samples than GROUP_SAMPLES, or than a share of all,
            are cut further, which at most doubles their number.
    """
    if len(samples) <= most:
        return [[sample] for sample in samples]
    sizes = [GROUP_BYTES if growth is None else growth * (1 + fasta_bytes([fasta])) for fasta in samples.values()]
    total, before = sum(sizes), 0.0
    number = min(most, max(int(total / GROUP_BYTES), -(-len(samples) // GROUP_SAMPLES)))
    groups: dict[int, list[str]] = {}
    for sample, size in zip(samples, sizes, strict=True):
        groups.setdefault(int((before + size / 2) / total * number), []).append(sample)
        before += size
    largest = max(GROUP_SAMPLES, -(-len(samples) // most))
    return [part for group in groups.values() for part in _cut(group, largest)]


def _cut(group: list[str], largest: int) -> list[list[str]]:
    """Return a group in as few parts as possible of about equal size, none larger than `largest`."""
    size = -(-len(group) // -(-len(group) // largest))
    return [group[start : start + size] for start in range(0, len(group), size)]
