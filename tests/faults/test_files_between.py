"""Files between the rules: one bit flipped, files exchanged, files of another run. No wrong embedding gets through."""

import os
import shutil
from collections import Counter

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from packed_esm.sequences.manifest import read_manifest
from packed_esm.system.files import read_json
from workflow.conftest import Project, proteins

from .table import Row, held_by

TITLE = "Files between the rules"
EDGE = 2048  # bytes at both ends of a file, where what it says of itself stands
EMBED = ["--model", "demo", "--device", "cpu", "--tokens-per-pack", "512", "--threads", "1"]
FASTAS = {"s": proteins(12) + ">bad\nM*V\n", "t": proteins(5, seed=1) + ">again\n" + proteins(1).split("\n")[1] + "\n"}
NOTICED_OR_HARMLESS = "the next program names the file, or values, ids and order are the same"

# kind: (file, what reads it next)
FLIPS = {
    "sequences of a chunk": ("1.fasta", "embed"),
    "manifest": ("m.parquet", "merge"),
    "embeddings of a chunk": ("2.arrow", "merge"),
    "statistics of a chunk": ("1.json", "validate"),
    "merged embeddings": ("s.parquet", "validate"),
}


def exchanged(*names):
    def change(folder, other):
        for one, two in (names, names[::-1]):
            shutil.copy(other.parent / "good" / two, folder / one)

    return change


def taken(name):
    return lambda folder, other: shutil.copy(other / name, folder / name)


# (what is done, [programs that must pass, ..., the one that must not], words of its message)
CHANGES = [
    Row("the FASTA files of two chunks exchanged", "merging names file, row and record", (exchanged("1.fasta", "2.fasta"), ["embed", "merge"]), "row 0: should be SQ."),
    Row("the embeddings of two chunks exchanged", "merging names file, row and record", (exchanged("1.arrow", "2.arrow"), ["merge"]), "row 0: should be SQ."),
    Row("embeddings of a chunk, from a run with other layers", "merging names file and setting", (taken("2.arrow"), ["merge"]), "2.arrow: made with other settings than 1.arrow (layers: [6] / [3])"),
    Row("embeddings of all chunks, from a run with other layers", "the validation names file and setting", (lambda *f: [taken(n)(*f) for n in ("1.arrow", "2.arrow")], ["merge", "validate"]), "s.parquet: its settings differ from the present ones (layers: [3] / [6])"),
    Row("statistics of a chunk, from a run with other layers", "the validation names file and setting", (taken("1.json"), ["validate"]), "1.json: it belongs to another run (layers: [3] / [6])"),
    Row("the manifest of a run of the same sequences with other ids", "the validation names manifest and FASTA", (taken("m.parquet"), ["merge", "validate"]), "s.fasta: not the file that m.parquet was made from"),
    Row("the manifest of a run with more chunks", "merging names it", (lambda folder, other: shutil.copy(other / "m3.parquet", folder / "m.parquet"), ["merge"]), "m.parquet: it belongs to a run with more than 2 chunks"),
    Row("the merged files of two samples exchanged", "the validation names file, row and sequence", (exchanged("s.parquet", "t.parquet"), ["validate"]), "s.parquet, row 5, sequence 'again': id is"),
    Row("a FASTA that a record was added to during the run", "the validation names it", (lambda folder, _: (folder / "s.fasta").open("a").write(">late\nMKV\n"), ["validate"]), "s.fasta: not the file that m.parquet was made from"),
]  # fmt: skip
FLIPPED = {kind: Row(f"a bit flipped: {kind}", NOTICED_OR_HARMLESS, varies=r"\d+") for kind in FLIPS}
# Results that embed_chunk.py copies from: {kind: (file, option)}
REUSED = {
    "vectors of other results that are reused": ("embeddings/s.parquet", "--reuse"),
    "values of residues of other results that are reused": ("residues/s.representations.h5", "--reuse"),
    "vectors of the run's own results that are reused": ("embeddings/s.parquet", "--own-results"),
    "values of residues of the run's own results that are reused": ("residues/s.representations.h5", "--own-results"),
}
REUSED_EXPECTED = {
    "--reuse": "the job names the file and what to do, or all values are the same",
    "--own-results": "what is damaged is embedded again; all values are the same",
}
FLIPPED_REUSED = {kind: Row(f"a bit flipped: {kind}", REUSED_EXPECTED[option], varies=r"\d+") for kind, (_, option) in REUSED.items()}  # fmt: skip
SNAKEMAKE = Row("a bit flipped, through snakemake: sequences of a chunk, manifest, statistics", "the run stops and says which file; with the file as it was it goes on")  # fmt: skip
ROWS = [
    *FLIPPED.values(),
    *FLIPPED_REUSED.values(),
    SNAKEMAKE,
    held_by("a bit flipped, through snakemake: embeddings of a chunk, merged embeddings", "the run stops and the log names file and sequence", "workflow/test_workflow.py::test_a_bit_flipped_between_rules_stops_the_run_with_the_name"),
    held_by("a file cut short, through snakemake: each kind", "the run stops in one line; the remedy helps", "workflow/test_restart.py::test_a_truncated_file_stops_the_run_with_its_name_and_the_remedy_helps"),
    held_by("sequences of a chunk cut between two records", "merging names what is missing", "workflow/test_restart.py::test_a_fasta_cut_between_two_records_is_noticed_and_the_remedy_helps"),
    held_by("a dataset of residues: NaN, zeros, +1.0, exchanged, linked to another", "noticed and named, compared or not", "unit/store/test_residues.py::test_a_dataset_that_is_not_as_it_was_computed_fails_validation"),
    held_by("reused residues: a file of other results is cut short", "the job names it and what to do", "unit/embedding/test_earlier_residues.py::test_a_file_that_is_not_whole_stops_the_job_or_is_left_where_it_is_the_runs_own"),
    held_by("reused residues: a value of other results was changed", "the job names file, dataset and what to do", "unit/embedding/test_earlier_residues.py::test_changed_values_stop_the_job_or_are_embedded_again_where_they_are_the_runs_own"),
    held_by("reused residues: one of two features of the run's own results is damaged", "the sequence is embedded again", "unit/embedding/test_earlier_residues.py::test_a_sequence_whose_second_feature_is_damaged_is_embedded_again_where_it_is_the_runs_own"),
    held_by("reused residues: a feature, a dataset or the target of a link is missing", "these sequences are embedded", "unit/embedding/test_earlier_residues.py::test_a_sequence_that_is_not_in_all_files_is_embedded"),
    held_by("reused residues: the file of a feature has another one", "nothing is reused, and the log says why", "unit/embedding/test_earlier_residues.py::test_a_file_of_another_feature_gives_nothing"),
    held_by("reused residues, through snakemake: a value was changed", "its sequence is embedded again", "workflow/test_residue_reruns.py::test_changed_values_are_embedded_again_and_never_taken"),
    held_by("a mistake of our own while a file is read", "keeps its traceback", "unit/store/test_merge_and_integrity.py::test_a_mistake_of_our_own_is_not_taken_for_a_damaged_file"),
    held_by("results/residues that is a link to another disk", "the links in its files work", "unit/store/test_merge_and_integrity.py::test_links_are_alive_where_a_folder_of_results_is_a_link"),
    held_by("a manifest with a hole", "named, or read as it was", "unit/system/test_files.py::test_a_manifest_with_a_hole_or_an_end_missing_is_never_read_as_something_else"),
    held_by("a merged file with a hole", "named, or read as it was", "unit/store/test_merge_and_integrity.py::test_a_merged_file_that_is_cut_or_has_a_hole_is_noticed_with_its_name"),
    *CHANGES,
]  # fmt: skip


class Run:
    """The programs of a run, one after the other, in the working directory."""

    def __init__(self, program, layers="-1"):
        self.program, self.embedding = program, [*EMBED, "--layers", layers]

    def chunk(self, chunks=("1.fasta", "2.fasta"), manifest="m.parquet"):
        samples = [word for name in FASTAS for word in ("--sample", name, f"{name}.fasta")]
        outputs = ["--chunks", *chunks, "--manifest", manifest, "--rejected", "r.tsv", "--counts", "c.json"]
        return [self.program("chunk_fasta", *samples, *outputs)]

    def embed(self, chunks=(1, 2)):
        for i in chunks:
            files = ["--fasta", f"{i}.fasta", "--out", f"{i}.arrow", "--stats", f"{i}.json"]
            yield self.program("embed_chunk", *files, *self.embedding)

    def merge(self):
        for name in FASTAS:
            files = ["--manifest", "m.parquet", "--chunks", "1.arrow", "2.arrow", "--out", f"{name}.parquet"]
            yield self.program("merge_sample", "--sample", name, *files)

    def validate(self):
        samples = [word for name in FASTAS for word in ("--sample", name, f"{name}.fasta", f"{name}.parquet")]
        files = ["--manifest", "m.parquet", "--stats", "1.json", "2.json", "--table", "v.tsv", "--summary", "v.json"]
        yield self.program("validate", *samples, *files, "--sequences", "3", *self.embedding)

    def ends(self, *steps):
        """Return how the first program ended that did not pass, None if all did."""
        for step in steps:
            for done in getattr(self, step)():
                assert "Traceback" not in done.err
                if done.status:
                    return done
        return None


@pytest.fixture(scope="module")
def runs():
    """Where `good` and `other` will be: made by the first test, because the programs need its fixtures."""
    return {}


@pytest.fixture
def run(tmp_path, tmp_path_factory, program, runs, monkeypatch):
    """A finished run in a folder of its own, and beside it, under `other`, one of other layers, ids and chunks."""
    if not runs:
        runs["folder"] = tmp_path_factory.mktemp("runs")
        for name, layers, texts in (("good", "-1", FASTAS), ("other", "3", {k: v.replace(">p", ">q") for k, v in FASTAS.items()})):  # fmt: skip
            folder = runs["folder"] / name
            folder.mkdir()
            monkeypatch.chdir(folder)
            for sample, text in texts.items():
                (folder / f"{sample}.fasta").write_text(text)
            made = Run(program, layers)
            made.chunk(("1.fasta", "2.fasta", "3.fasta"), "m3.parquet")
            (folder / "3.fasta").unlink()
            assert made.ends("chunk", "embed", "merge", "validate") is None
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs["folder"] / "good", tmp_path, dirs_exist_ok=True)
    return Run(program)


def flipped(path, rng):
    """Flip one bit of a file, every second time near one of its ends."""
    data = bytearray(path.read_bytes())
    near = min(EDGE, len(data))
    place = int(rng.integers(len(data)) if rng.integers(2) else rng.integers(-near, near))
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def is_harmless(folder, good, reader):
    """Return whether what the next program made, and what those after it read, is what it was."""
    if reader == "embed":
        return (folder / "1.arrow").read_bytes() == (good / "1.arrow").read_bytes()
    if reader == "merge":
        assert read_manifest(folder / "m.parquet").equals(read_manifest(good / "m.parquet"))
        return all((folder / f"{s}.parquet").read_bytes() == (good / f"{s}.parquet").read_bytes() for s in FASTAS)
    assert read_json(folder / "1.json") == read_json(good / "1.json")
    return pq.read_table(folder / "s.parquet").equals(pq.read_table(good / "s.parquet"))


@pytest.mark.parametrize("kind", FLIPS)
def test_one_flipped_bit_is_noticed_by_the_next_program_or_harmless(run, runs, tmp_path, seen, request, kind):
    name, reader = FLIPS[kind]
    good = runs["folder"] / "good"
    trials = 200 if request.config.getoption("--all-faults") else 8
    outcomes = Counter()
    for trial in range(trials):
        flipped(tmp_path / name, np.random.default_rng([len(kind), trial]))
        if reader == "embed":
            run.embed = lambda: Run.embed(run, (1,))
        done = run.ends(reader)
        if done is None:
            assert is_harmless(tmp_path, good, reader), trial
        else:
            assert done.status == 1 and name in done.last and "run again" in done.last, (trial, done.err)
        outcomes["harmless" if done is None else "noticed"] += 1
        for path in good.iterdir():
            if path.name == name or path.suffix == ".parquet" or path.name == "1.arrow":
                shutil.copy(path, tmp_path / path.name)
    assert outcomes["noticed"] > trials / 2
    seen(FLIPPED[kind], f"{trials} flips: {outcomes['noticed']} noticed, {outcomes['harmless']} harmless")


@pytest.fixture
def reusable(run, runs, tmp_path):
    """Merged results of the sample s with residues in `earlier/`, and a function that embeds a chunk beside them."""

    def embed(name, *options):
        outputs = ["--out", f"{name}.arrow", "--stats", f"{name}.json", "--residues", "representations", f"{name}.h5"]
        return run.program("embed_chunk", "--fasta", f"{name[0]}.fasta", *outputs, *EMBED, *options)

    for folder in ("embeddings", "residues"):
        (tmp_path / "earlier" / folder).mkdir(parents=True)
    assert embed("1").status == embed("2").status == 0
    shared = ["--manifest", "m.parquet", "--sample", "s"]
    done = run.program(
        "merge_sample", *shared, "--chunks", "1.arrow", "2.arrow", "--out", "earlier/embeddings/s.parquet"
    )
    assert done.status == 0
    merged = "earlier/residues/s.representations.h5"
    assert run.program("merge_residues", *shared, "--chunks", "1.h5", "2.h5", "--out", merged).status == 0
    return embed


def flipped_value(path, rng):
    """Flip one bit of the values of a file for each residue."""
    with h5py.File(path) as file:
        dataset = file[sorted(file)[int(rng.integers(len(file)))]].id
        offset, size = dataset.get_offset(), dataset.get_storage_size()
    data = bytearray(path.read_bytes())
    data[offset + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def residues_of(path):
    """Return {name: (values, attributes)} of a file for each residue."""
    with h5py.File(path) as file:
        return {name: (dataset[...].tobytes(), dict(dataset.attrs)) for name, dataset in file.items()}


@pytest.mark.parametrize("kind", REUSED)
def test_one_flipped_bit_of_results_that_are_reused_never_changes_a_value(reusable, tmp_path, seen, request, kind):
    name, option = REUSED[kind]
    path, expected = tmp_path / "earlier" / name, residues_of(tmp_path / "1.h5")
    source = tmp_path / "earlier" / ("embeddings/s.parquet" if option == "--reuse" else "")
    whole, trials = path.read_bytes(), 60 if request.config.getoption("--all-faults") else 4
    outcomes = Counter()
    for trial in range(trials):
        path.write_bytes(whole)
        flip = flipped_value if path.suffix == ".h5" else flipped
        flip(path, np.random.default_rng([len(kind), trial]))
        done = reusable("1new", option, source)
        assert "Traceback" not in done.err, (trial, done.err)
        if done.status:
            assert option == "--reuse" and done.status == 1, (trial, done.err)
            assert str(path) in done.last and "remove it from `reuse`" in done.last, (trial, done.err)
        else:
            assert (tmp_path / "1new.arrow").read_bytes() == (tmp_path / "1.arrow").read_bytes(), trial
            assert residues_of(tmp_path / "1new.h5") == expected, trial
        again = done.status == 0 and read_json(tmp_path / "1new.json")["reused_sequences"] < len(expected)
        outcomes["named" if done.status else "embedded again" if again else "harmless"] += 1
    assert outcomes["harmless"] < trials
    seen(FLIPPED_REUSED[kind], f"{trials} flips: " + ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())))


@pytest.mark.parametrize("row", CHANGES, ids=str)
def test_files_that_do_not_belong_together(run, runs, tmp_path, seen, row):
    change, steps = row.given
    change(tmp_path, runs["folder"] / "other")
    if steps[:-1]:
        assert run.ends(*steps[:-1]) is None
    done = run.ends(steps[-1])
    assert done is not None and done.status == 1 and row.words in done.last, done
    seen(row, done.last)


def test_flipped_bits_through_snakemake(tmp_path, seen):
    project = Project(tmp_path)
    project.write_samples(s=proteins(6))
    said = []
    steps = [
        ("chunk_fasta", "embed_chunk", "results/demo/chunks/1-of-1.fasta", 150),
        ("embed_chunk", "merge_samples", "results/demo/manifest.parquet", 150),
        ("merge_samples", "validate", "results/demo/chunks/1-of-1.json", 40),
    ]
    for made, reader, name, place in steps:
        project.passes("--until", made)
        path = tmp_path / name
        data, times = path.read_bytes(), path.stat()
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        done = project.fails("--until", reader, "--rerun-triggers", "params")
        (line, *_) = [line for line in done.output.splitlines() if f"{reader.removesuffix('s')}.py: error: " in line]
        assert name in line and "run again" in line
        said.append(line)
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    project.passes("--until", reader)
    seen(SNAKEMAKE, "; ".join(said))
