"""Samples in parts, and chunks that are removed: the results are the same, and nothing runs without a reason."""

import numpy as np
import pyarrow.parquet as pq

from .conftest import proteins, without_group

FORMATS = "formats=[npy, h5, pt]"
SMALL = ("rows_per_file=4", "keep_chunks=false", "chunks=2", FORMATS)


def jobs(done):
    """Return the rules that a dry run would run."""
    return {without_group(line.split()[1].rstrip(":")) for line in done.output.splitlines() if line.startswith("rule ")}


def test_parts_without_chunks_are_exported_validated_and_turned_into_files_and_back(project):
    project.write_samples(s=proteins(9), t=proteins(3, seed=1))
    done = project.passes(config=SMALL)
    assert "Validation: passed" in done.output and "Stale" not in done.output
    folder = project.results / "embeddings"
    parts = sorted(path.name for path in (folder / "s.parquet").glob("[!.]*"))
    assert parts == [f"part-0000{i}.parquet" for i in (1, 2, 3)]
    assert {path.suffix for path in (project.results / "chunks").iterdir()} == {".json"}
    matrix = project.matrix("s")
    assert len(matrix) == 9 and np.array_equal(np.load(folder / "s.mean_6.npy"), matrix)
    assert "Nothing to be done" in project.passes("--dry-run", config=SMALL).output
    assert "Nothing to be done" in project.passes("--dry-run", config=(*SMALL[:1], *SMALL[2:])).output

    done = project.passes(config=SMALL[1:])
    stats = project.stats()
    assert sum(job["reused_sequences"] for job in stats) == sum(job["sequences"] for job in stats) == 12
    assert "Validation: passed" in done.output and pq.read_table(folder / "s.parquet").num_rows == 9
    assert np.array_equal(project.matrix("s"), matrix) and (folder / "s.parquet").is_file()

    (folder / "t.parquet").unlink()
    assert {"chunk_fasta", "embed_chunk", "merge_samples"} <= jobs(project.passes("--dry-run", config=SMALL[1:]))
