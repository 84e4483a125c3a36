"""The workflow end to end through snakemake, each config key included."""

import gzip
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_files import save_fair_esm, save_hugging_face
from conftest import fair_esm_alone, random_esm2, random_sequence
from packed_esm.sequences.alphabet import normalise
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.tokens import tokenize

from .conftest import proteins

MERGE = ("merge_samples",)  # for what the validation and the report add nothing to


def reference(demo, fasta, layer):
    """Return {id: mean of fair-esm's residues} of a FASTA file."""
    return {
        r.id: fair_esm_alone(demo, tokenize(normalise(r.sequence)), [layer])[layer][1:-1].mean(0).numpy()
        for r in read_records(fasta)
    }


def test_samples_plain_and_gzip_with_duplicates_and_rejects(project, demo):
    """Two samples share sequences; every accepted record has fair-esm's embedding, in input order."""
    project.write_samples(one=proteins(9), two=">q0\nMKV\n>bad\nM*V\n" + proteins(5))
    data = (project.folder / "two.fasta").read_bytes()
    (project.folder / "two.fasta").write_bytes(gzip.compress(data))
    done = project.passes(config=("chunks=3",))
    for sample, count in (("one", 9), ("two", 6)):
        table = project.embeddings(sample)
        want = reference(demo, project.folder / f"{sample}.fasta" if sample == "one" else _plain(project, data), 6)
        assert len(table) == count
        for name, embedding in zip(table["id"], table["mean_6"], strict=True):
            assert np.allclose(embedding, want[name], rtol=1e-5, atol=1e-5)
    assert sum(job["sequences"] for job in project.stats()) == 10 and len(project.stats()) == 3
    rejected = pd.read_csv(project.folder / "results/demo/rejected.tsv", sep="\t")
    assert rejected["id"].tolist() == ["bad"] and rejected["line"].tolist() == [3]
    assert "Validation: passed; 15 rows checked, 4 sequences" in done.output
    assert "Report:     results/demo/report.html" in done.output and "residues/s in a job, after loading" in done.output
    assert "sample  records  accepted  changed  rejected  residues" in done.output
    assert "Nothing to be done" in project.passes(config=("chunks=3",)).output


def _plain(project, data):
    path = project.folder / "plain.fasta"
    path.write_bytes(data.replace(b">bad\nM*V\n", b""))
    return path


def test_every_embedding_option_reaches_the_embeddings(project):
    """layers, pooling, dtype, attention, tokens_per_pack, device, on_nonfinite, residues_per_chunk by --config."""
    project.write_samples(s=proteins(12))
    project.passes(
        config=(
            "layers=[0,3,-1]",
            "pooling=[mean,bos,max,std,eos]",
            "include=[log_likelihood]",
            "dtype=bf16",
            "attention=padded",
            "tokens_per_pack=300",
            "device=cpu",
            "on_nonfinite=fail",
            "residues_per_chunk=1000",
            "color_by=family",
            "validation={sequences: 3, seed: 5, max_relative_l2: 0.05, min_residue_cosine: 0.99}",
        )
    )
    columns = [f"{pooling}_{layer}" for layer in (0, 3, 6) for pooling in ("mean", "bos", "max", "std", "eos")]
    assert list(project.embeddings("s")) == [
        "id",
        "accession",
        "digest",
        "length",
        *columns,
        "log_likelihood",
        "checksum",
    ]
    settings = project.validation()["settings"]
    assert settings["layers"] == [0, 3, 6] and settings["dtype"] == "bf16" and settings["attention"] == "padded"
    assert settings["tokens_per_pack"] == 300 and settings["device"] == "cpu"
    assert project.validation()["sequences_compared"] == 3
    tolerance = project.validation()["tolerance"]
    assert tolerance["relative_l2"] == 0.05 and tolerance["residue_cosine"] == 0.99
    assert len(project.stats()) == 2


def test_values_of_each_residue_logits_and_contacts_are_kept_and_validated(project):
    model = random_esm2(num_layers=2, embed_dim=32, heads=2)
    torch.nn.init.normal_(model.contact_head.regression.weight)
    path = save_fair_esm(model, project.folder / "esm2_small.pt", contacts=True)
    project.write_samples(s=proteins(7), t=proteins(3))
    project.results = project.folder / "results/esm2_small"
    options = (f"model={path}", "include=[logits,contacts]", "per_residue=float16")
    project.passes(config=("chunks=2", "validation={sequences: 4, repeat: 1}", *options))
    found = project.validation()
    assert [job["repeated_sequences"] for job in project.stats()] == [job["sequences"] for job in project.stats()]
    assert (
        found["bit_equal"]
        and found["worst_contacts_abs_per_residue"] < 6e-5
        and found["worst_logits_relative_l2"] < 2e-6
    )
    assert 0 < found["worst_representations_relative_l2"] < 5e-4
    for sample, count in (("s", 7), ("t", 3)):
        with h5py.File(project.folder / f"results/esm2_small/residues/{sample}.representations.h5") as file:
            lengths = dict(zip(*(project.embeddings(sample)[name] for name in ("id", "length")), strict=True))
            assert {name: len(rows) for name, rows in file.items()} == lengths and len(lengths) == count
            means = np.stack([file[name][...].astype("f4").mean(0) for name in project.embeddings(sample)["id"]])
        assert np.allclose(means, project.matrix(sample, "mean_2"), atol=2e-3)
    named = project.run("-n", config=("model=esm2_t6_8M_UR50D", "include=contacts"))
    assert "download_contact_head" in named.output


@pytest.mark.parametrize(("action", "lengths"), [("truncate", [60, 30, 60]), ("split", [200, 30, 61])])
def test_long_proteins_are_cut_as_asked_listed_and_validated(project, demo, action, lengths):
    rng = np.random.default_rng(0)
    sequences = {name: random_sequence(length, rng) for name, length in (("a", 200), ("b", 30), ("c", 61))}
    project.write_samples(s="".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    options = ("per_residue=float32", f"long_proteins={{max_length: 60, action: {action}, overlap: 20}}")
    done = project.passes(config=options)
    assert project.embeddings("s")["length"].tolist() == lengths and project.validation()["bit_equal"]
    listed = pd.read_csv(project.folder / "results/demo/rejected.tsv", sep="\t")
    assert listed["id"].tolist() == ["a", "c"] and "changed" in done.output
    with h5py.File(project.folder / "results/demo/residues/s.representations.h5") as file:
        first = fair_esm_alone(demo, tokenize(sequences["a"][:60]), [6])[6][1:-1]
        assert file["a"].shape == (lengths[0], 192) and np.allclose(file["a"][:40], first[:40], rtol=1e-4, atol=1e-5)
    if action == "split":
        wrong = project.fails(config=(options[0], options[1].replace("20", "60")))
        assert "long_proteins.overlap: 60 must be" in wrong.output


def test_records_are_replaced_and_ids_suffixed_by_choice(project):
    project.write_samples(s=">a\nMJV\n>a\nMKV\n>a\nMXV\n")
    project.passes(*MERGE, config=("on_invalid=replace", "on_duplicate_id=suffix"))
    table = project.embeddings("s")
    assert table["id"].tolist() == ["a", "a_2", "a_3"]
    assert np.array_equal(table["mean_6"][0], table["mean_6"][2])  # J became X
    for option, message in (("on_invalid=fail", "record 'a'"), ("on_invalid=replace", "id 'a' is already")):
        done = project.fails(config=(option,))
        assert message in done.output


def test_chunking_does_not_change_one_bit_nor_one_byte(project):
    project.write_samples(s=proteins(20), t=proteins(7, seed=1))
    files = {}
    for chunks in (1, 3):
        shutil.rmtree(project.folder / "results", ignore_errors=True)
        project.passes(*MERGE, config=(f"chunks={chunks}",))
        files[chunks] = [(project.folder / f"results/demo/embeddings/{s}.parquet").read_bytes() for s in "st"]
    assert files[1] == files[3]


def test_scatter_can_be_set_on_the_command_line(project):
    project.write_samples(s=proteins(6))
    project.passes("--set-scatter", "chunk=4", "--until", "chunk_fasta")
    assert len(list((project.folder / "results/demo/chunks").glob("*-of-4.fasta"))) == 4


def test_nucleotides_are_translated_and_their_proteins_embedded_and_validated(project, demo):
    """Plain and gzip; each protein has fair-esm's embedding, each record a row, and a genetic code reruns all."""
    rng = np.random.default_rng(0)
    coding = "".join(f">r{i} family={'ab'[i % 2]}\n{random_sequence(700, rng, 'ACG')}\n" for i in range(4))
    project.write_samples(reads=coding + ">rna\nAUGGCC\n>stops\nTTAATTAATTAA\n", more=coding)
    (project.folder / "more.fasta").write_bytes(gzip.compress(coding.encode()))
    config = ("input=nucleotide", "translation={window: 300}", "chunks=2")
    done = project.passes(config=config)
    assert project.validation()["passed"] and "Validation: passed" in done.output
    table = project.embeddings("reads")
    want = reference(demo, project.folder / "results/demo/translated/reads.fasta", 6)
    assert table["id"].tolist() == list(want) and {name[:10] for name in want} >= {f"r{i}_chunk_3" for i in range(4)}
    assert np.allclose(np.stack(table["mean_6"]), np.stack(list(want.values())), rtol=1e-5, atol=1e-5)
    assert project.embeddings("more").equals(table)
    rows = pd.read_csv(project.folder / "results/demo/translated/reads.tsv", sep="\t", keep_default_na=False)
    assert rows["id"].tolist() == ["r0", "r1", "r2", "r3", "rna", "stops"] and rows["kept"].sum() == len(table)
    assert "write T for U" in rows["reason"][4] and "a stop" in rows["reason"][5]
    assert "record 'rna' rejected" in (project.folder / "logs/demo/translate/reads.log").read_text()
    assert "look like nucleotides" not in (project.folder / "logs/demo/chunk_fasta.log").read_text()
    assert "Nothing to be done" in project.passes("--dry-run", config=config).output
    for changed in ("{genetic_code: 11}", "{window: none}", "{ambiguous_codons: skip}"):
        again = project.passes("--dry-run", config=(*config, f"translation={changed}")).output
        assert all(f"rule {name}:" in again for name in ("translate", "chunk_fasta", "merge_samples_1", "validate"))


def test_the_number_of_chunks_counts_three_nucleotides_a_residue(project):
    project.write_samples(s=f">s\n{'ACG' * 2000}\n")
    for config, chunks in ((("input=nucleotide",), 3), ((), 7)):
        done = project.passes("--dry-run", config=(*config, "residues_per_chunk=1000"))
        assert f"embed_chunk {chunks}" in " ".join(done.output.split())


def test_proteins_by_mistake_as_nucleotides_and_the_other_way_round_are_told(project):
    project.write_samples(s=proteins(3))
    done = project.fails(config=("input=nucleotide",))
    assert (
        "s.fasta, line 1: record 'p0': characters that are not nucleotides" in done.output
        and "set input: protein" in done.output
    )
    project.write_samples(s=f">s\n{'ACGT' * 20}\n")
    project.passes("--until", "chunk_fasta")
    assert "set input: nucleotide" in (project.folder / "logs/demo/chunk_fasta.log").read_text()


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param({"s": ""}, id="an-empty-sample-alone"),
        pytest.param({"s": "", "t": ">only\nM\n"}, id="an-empty-sample-and-one-residue"),
        pytest.param({"s": ">bad\n123\n"}, id="all-rejected"),
    ],
)
def test_samples_with_nothing_or_next_to_nothing(project, samples):
    project.write_samples(**samples)
    project.passes(config=("chunks=2",))
    for sample, text in samples.items():
        assert len(project.embeddings(sample)) == text.count("only")
    assert (project.folder / "results/demo/report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (("modle=demo",), "config: there is no key modle; did you mean model?"),
        (("layers=[a]",), "'a' is not of type 'integer'"),
        (("pooling=[median]",), "'median' is not one of ['mean', 'max', 'std', 'bos', 'eos']"),
        (("tokens_per_pack=-5",), "-5"),
        (("input=dna",), "'dna' is not one of ['protein', 'nucleotide']"),
        (("translation={genetic_code: 7}",), "7 is not one of [1, 2, 3"),
        (("translation={window: 2}",), "config, translation, window: "),
        (("window=500",), "config: window is now translation.window; write --config 'translation={window: 500}'"),
        (
            ("validation={sequence: 3}",),
            "there is no key sequence; did you mean validation.sequences?",
        ),
        (("model=esm2_9B",), "model: 'esm2_9B' is neither a known name"),
        (("model=no/such.pt",), "model: no/such.pt does not exist"),
        (("samples=nowhere.tsv",), "there is no nowhere.tsv; give FASTA files"),
    ],
)
def test_config_mistakes_are_named_before_anything_runs(project, config, message):
    project.write_samples(s=proteins(2))
    assert message in project.fails(config=config).output
    assert not (project.folder / "results").exists()


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("sample\tfile\ns\ts.fasta\n", "'file' was unexpected"),
        ("sample\tfasta\ns\ts.fasta\ns\ts.fasta\n", "sample 's' is in more than one row"),
        ("sample\tfasta\na/b\ts.fasta\n", "'a/b' does not match"),
        ("sample\tfasta\ns\t\n", "'' should be non-empty"),
        ("sample\tfasta\n", "no sample in it"),
        ("sample\tfasta\ns\tnowhere.fasta\n", "there is no FASTA file nowhere.fasta"),
    ],
)
def test_sample_sheet_mistakes_are_named(project, sheet, message):
    project.write_samples(s=proteins(2))
    (project.folder / "samples.tsv").write_text(sheet)
    assert message in project.fails().output


def test_sample_names_are_text_and_sheets_can_be_elsewhere(project):
    project.write_samples(s=proteins(2))
    (project.folder / "sheets").mkdir()
    (project.folder / "sheets" / "my.tsv").write_text(f"sample\tfasta\nNA\t../s.fasta\n001\t{project.folder}/s.fasta\n")
    project.passes(*MERGE, config=("samples=sheets/my.tsv",))
    assert len(project.embeddings("NA")) == len(project.embeddings("001")) == 2


def test_the_config_file_of_the_working_directory_wins(project):
    project.write_samples(s=proteins(3))
    (project.folder / "config").mkdir()
    (project.folder / "config" / "config.yaml").write_text("samples: samples.tsv\nlayers: [2]\n")
    project.passes(*MERGE, config=())
    assert "mean_2" in project.embeddings("s")


def test_directory_elsewhere_is_where_results_go(project):
    project.write_samples(s=proteins(2))
    elsewhere = project.folder / "elsewhere"
    elsewhere.mkdir()
    project.passes(*MERGE, "--directory", str(elsewhere), config=(f"samples={project.folder}/samples.tsv",))
    assert (elsewhere / "results/demo/embeddings/s.parquet").exists() and not (project.folder / "results").exists()


def test_without_a_sheet_the_shipped_example_is_used_and_said(project):
    done = project.run("--dry-run", config=("samples=config/samples.tsv",))
    assert done.returncode == 0 and "the shipped example is used" in done.output


def test_a_checkpoint_by_path_and_a_hugging_face_folder(project):
    base = random_esm2(num_layers=2, embed_dim=32, heads=2)
    save_fair_esm(base, project.folder / "esm2_small.pt")
    save_hugging_face(base, project.folder / "hf")
    project.write_samples(s=proteins(4))
    found = []
    for model in ("./esm2_small.pt", "hf"):
        project.passes(*MERGE, config=(f"model={model}",))
        project.results = project.folder / "results" / Path(model).stem
        found.append(project.matrix("s", "mean_2"))
    assert np.array_equal(*found)


def test_a_named_model_is_downloaded_by_a_rule_of_its_own_and_says_what_to_do_without_a_network(project, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(project.folder / "torch"))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    project.write_samples(s=proteins(2))
    done = project.fails(config=("model=esm2_t6_8M_UR50D",))
    assert "by other means and put it at" in done.output and "hub/checkpoints/esm2_t6_8M_UR50D.pt" in done.output
    assert not list((project.folder / "torch").rglob("*.pt"))
    path = project.folder / "torch/hub/checkpoints/esm2_t12_35M_UR50D.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_fair_esm(random_esm2(12, 480, 20), path)
    done = project.passes(*MERGE, config=("model=esm2_t12_35M_UR50D",))
    project.results = project.folder / "results/esm2_t12_35M_UR50D"
    assert "download_model" not in done.output and "mean_12" in project.embeddings("s")


def test_earlier_results_are_reused_and_only_what_is_new_is_embedded(project):
    """A week later one record more: one sequence embedded, the bytes of a run without reuse; other settings: none."""
    project.write_samples(s=proteins(12), t=proteins(5, seed=1))
    project.passes(*MERGE)
    (project.folder / "results").rename(project.folder / "earlier")
    project.write_samples(s=proteins(13), t=proteins(5, seed=1))
    config = ("reuse=earlier", "chunks=2")
    project.passes(config=config)
    assert sum(job["sequences"] for job in project.stats()) == 18
    assert sum(job["reused_sequences"] for job in project.stats()) == 17
    assert project.validation()["passed"] and project.validation()["bit_equal"]
    assert "17 sequences</td>" in (project.folder / "results/demo/report.html").read_text()
    reusing = [(project.folder / f"results/demo/embeddings/{sample}.parquet").read_bytes() for sample in "st"]
    (project.folder / "earlier/demo/embeddings/s.parquet").touch()
    assert "Nothing to be done" in project.passes("--dry-run", config=config).output
    done = project.passes(*MERGE, config=(*config, "layers=[3]", "dtype=bf16"))
    assert "earlier/demo/embeddings/s.parquet is not used: made with other settings: dtype: " in done.output
    assert "layers: [3] / [6]" in done.output
    assert sum(job["reused_sequences"] for job in project.stats()) == 0
    project.passes(*MERGE)
    assert [(project.folder / f"results/demo/embeddings/{sample}.parquet").read_bytes() for sample in "st"] == reusing
    assert "embed_chunk" not in project.passes("--dry-run", *MERGE, config=("reuse=results",)).output


@pytest.mark.parametrize(
    ("rule", "file"),
    [("merge_samples_1", "results/demo/chunks/1-of-1.arrow"), ("validate", "results/demo/embeddings/s.parquet")],
)
def test_a_bit_flipped_between_rules_stops_the_run_with_the_name(project, rule, file):
    project.write_samples(s=proteins(8))
    project.passes(*(("--until", "embed_chunk") if rule == "merge_samples_1" else MERGE))
    path = project.folder / file
    data = bytearray(path.read_bytes())
    needle = np.float32(_a_value(path)).tobytes()
    data[data.index(needle)] ^= 1
    path.write_bytes(data)
    done = project.fails("--rerun-triggers", "params")
    assert "Error in rule " + rule in done.output
    log = (project.folder / "logs").rglob("*.log")
    assert any("checksum" in p.read_text() and ("SQ." in p.read_text() or "'p" in p.read_text()) for p in log)


def _a_value(path):
    from packed_esm.store.embeddings import ChunkFile

    if path.suffix == ".arrow":
        return ChunkFile(path).columns["mean_6"][3, 7]
    return pd.read_parquet(path)["mean_6"][3][7]


def test_logs_benchmarks_and_the_page_are_left(cold_project):
    project = cold_project
    project.cores = 2
    project.write_samples(s=proteins(6) + "><script>alert(1)</script>\nM1\n")
    project.passes()
    folder = project.folder
    assert "residues/s" in (folder / "logs/demo/embed_chunk/1-of-1.log").read_text()
    assert "rejected" in (folder / "logs/demo/chunk_fasta.log").read_text()
    assert (folder / "benchmarks/demo/validate.tsv").exists()
    page = (folder / "results/demo/report.html").read_text()
    assert "Validation passed" in page and page.count("data:image/png;base64,") == 6
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert json.loads((folder / "results/demo/counts.json").read_text())["rejected"] == 1


def test_a_column_of_the_metadata_colours_the_plots_and_mistakes_in_it_stop_the_run_at_once(project):
    project.write_samples(s=proteins(8))
    sheet = project.folder / "meta.tsv"
    config = ("metadata=meta.tsv", "color_by=place")
    assert "there is no sheet meta.tsv" in project.fails("--dry-run", config=config).output
    sheet.write_text("name\tplace\n")
    assert "no column `id` in its header (name, place)" in project.fails("--dry-run", config=config).output
    sheet.write_text("id\tplace\n" + "".join(f"p{i}\t{'in' if i < 5 else 'out'}\n" for i in range(8)))
    project.passes(config=config)
    page = (project.folder / "results/demo/report.html").read_text()
    assert (
        "in (5)" in page
        and "out (3)" in page
        and "color" not in (project.folder / "logs/demo/make_report.log").read_text()
    )
    sheet.write_text(sheet.read_text() + "p3\tin\n")
    done = project.fails(config=config)
    assert "id 'p3' is in more than one row" in done.output and "embed_chunk" not in done.output
    sheet.write_text("Entry\tplace\nnobody\tin\n")
    done = project.fails(config=config)
    assert "meta.tsv: 0 of 8 proteins matched: its column `Entry` begins with 'nobody', the ids of the" in done.output


@pytest.mark.slow
def test_titin_is_embedded_whole_within_4_gb(project, shared):
    """34,350 residues on CPU; its first 4,000, where fair-esm's attention is computed in blocks, are validated too."""
    (titin,) = read_records(shared / "fasta/titin_34350.faa")
    project.write_samples(titin=f">titin\n{titin.sequence}\n>start\n{titin.sequence[:4000]}\n>m\nM\n")
    project.passes(*MERGE)
    assert project.embeddings("titin")["length"].tolist() == [34350, 4000, 1]
    assert np.isfinite(project.matrix("titin")).all()
    assert project.stats()[0]["peak_memory_mb"] < 4096
    project.write_samples(titin=f">start\n{titin.sequence[:4000]}\n>m\nM\n")
    project.passes()
    assert project.validation()["longest"] == 4000
