"""A short summary of a run, as text for the terminal."""

import itertools
from collections.abc import Mapping, Sequence

MOST_SAMPLES = 20  # in a table on the terminal; the page and counts.json have all
CHANGED = ("replaced", "truncated", "split")  # embedded, but not as in the FASTA


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells, the header first, as a text table; all columns but the first are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def sample_table(counts: Mapping) -> str:
    """Return the records and residues of the first samples, and the sums of all; `counts` is from chunk_fasta."""
    columns = ("records", "accepted", "changed", "rejected", "residues")
    samples = counts["samples"]
    rows = dict(itertools.islice(samples.items(), MOST_SAMPLES))
    if len(samples) > 1:
        rows["all"] = counts
    rows = {name: row | {"changed": sum(row[status] for status in CHANGED)} for name, row in rows.items()}
    shown = table([("sample", *columns), *((name, *(f"{row[c]:,}" for c in columns)) for name, row in rows.items())])
    more = len(samples) - MOST_SAMPLES
    return f"{shown}\n({more:,} more samples are in counts.json)" if more > 0 else shown


def rate(stats: Sequence[Mapping]) -> str:
    """Return the rate of the embed jobs; `stats` are from embed_chunk."""
    residues = sum(job["residues"] - job["reused_residues"] for job in stats)
    seconds = sum(job["seconds"]["embed"] for job in stats)
    speed = f"{residues / seconds:,.0f} residues/s in a job, after loading" if residues else "nothing was embedded"
    reused = sum(job["reused_sequences"] for job in stats)
    return f"{speed}; {reused:,} sequences from earlier results" if reused else speed


def reference(found: Mapping) -> str:
    """Return the name of the package that a validation compared with; summaries of before 0.4 do not say it."""
    return found.get("reference", "fair-esm").split()[0]


def verdict(found: Mapping) -> str:
    """Return the result of the validation; `found` is its summary."""
    if not found["sequences_compared"]:
        return "there was no sequence to validate"
    return (
        f"passed; {found['rows_checked']:,} rows checked, {found['sequences_compared']} sequences of "
        f"{found['shortest']:,} to {found['longest']:,} residues compared with {reference(found)}, worst relative L2 "
        f"{found['worst_relative_l2']:.1e}, worst residue cosine {found['worst_residue_cosine']:.8f}"
    )
