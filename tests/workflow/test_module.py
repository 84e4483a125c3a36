"""The workflow as a module of another one: every kind of result can be its input, wherever it lies."""

import numpy as np
import pandas as pd
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2, random_sequence

SNAKEFILE = """
module embeddings:
    snakefile: {snakefile}
    config: {config}

use rule * from embeddings as embeddings_*

rule done:
    default_target: True
    input: {wanted}
    output: "done.txt"
    shell: "touch {{output}}"
"""


def write_caller(project, config, wanted=(), snakefile=f'"{ROOT}/workflow/Snakefile"', more=""):
    """Write a Snakefile with the workflow as a module; `snakefile` and `more` are lines of the module."""
    caller = project.folder / "Snakefile"
    text = SNAKEFILE.format(snakefile=snakefile, config=config, wanted=list(wanted))
    caller.write_text(text.replace("    config:", f"    {more}\n    config:"))
    return {"snakefile": caller, "config": ("samples=unused",)}


def test_every_kind_of_result_can_be_the_input_of_another_workflow(project):
    model = random_esm2(num_layers=2, embed_dim=32, heads=2)
    torch.nn.init.normal_(model.contact_head.regression.weight)
    save_fair_esm(model, project.folder / "esm2_small.pt", contacts=True)
    rng = np.random.default_rng(0)
    project.write_samples(s="".join(f">r{i}\n{random_sequence(300, rng, 'ACG')}\n" for i in range(2)))
    (project.folder / "about.tsv").write_text("id\thost\nr0_chunk_1F1\tpig\n")
    config = {
        "samples": "samples.tsv",
        "input": "nucleotide",
        "model": "esm2_small.pt",
        "pooling": ["mean", "max"],
        "include": ["log_likelihood", "logits", "contacts"],
        "per_residue": "float16",
        "formats": ["h5", "npy", "h5ad", "skbio", "pt"],
        "metadata": "about.tsv",
        "color_by": "host",
        "validation": {"sequences": 2},
    }
    results = [
        "translated/s.fasta",
        "translated/s.tsv",
        "embeddings/s.parquet",
        *(
            f"embeddings/s.{name}"
            for name in ("mean_2.h5", "max_2.h5", "mean_2.npy", "mean_2.ids.txt", "max_2.skbio.h5", "h5ad", "pt")
        ),
        *(f"residues/s.{feature}.h5" for feature in ("representations", "logits", "contacts")),
        *("validation/summary.json", "validation/sequences.tsv", "manifest.parquet", "rejected.tsv", "counts.json"),
        *("report.html", "figures/umap.png"),
    ]
    wanted = [f"results/esm2_small/{path}" for path in results]
    project.passes(**write_caller(project, config, wanted))
    assert all((project.folder / path).exists() for path in (*wanted, "done.txt"))
    table = pd.read_parquet(project.folder / "results/esm2_small/embeddings/s.parquet")
    assert {"mean_2", "max_2", "log_likelihood"} < set(table)
    assert np.stack(table["max_2"]).shape == (12, 32)


def test_the_caller_of_a_module_says_where_results_lie(project):
    project.write_samples(s=">a\nMKVLLAGG\n>b\nMKV\n")
    config, wanted = {"samples": "samples.tsv"}, ["mine/embeddings/s.parquet"]
    caller = write_caller(project, config, wanted, more='pathvars: results="mine"')
    project.passes(**caller)
    assert (project.folder / "mine/settings.json").exists() and not (project.folder / "results").exists()
    assert "Nothing to be done" in project.passes(**caller).output


def test_prefix_of_a_module_is_before_results_and_logs_and_not_before_what_the_user_wrote(project):
    project.write_samples(made="")
    (project.folder / "made.fasta").unlink()
    rng = np.random.default_rng(0)
    (project.folder / "source.fa").write_text("".join(f">r{i}\n{random_sequence(300, rng, 'ACG')}\n" for i in range(2)))
    (project.folder / "about.tsv").write_text("id\thost\nr0_chunk_1F1\tpig\n")
    save_fair_esm(random_esm2(num_layers=2, embed_dim=32, heads=2), project.folder / "small.pt")
    config = {
        "samples": "samples.tsv",
        "input": "nucleotide",
        "model": "small.pt",
        "metadata": "about.tsv",
        "chunks": 2,
    }
    config |= {"per_residue": "float16", "formats": ["h5", "pt"], "validation": {"sequences": 2}}
    wanted = ["sub/results/small/report.html", "sub/results/small/embeddings/made.pt"]
    caller = write_caller(project, config, wanted, more='prefix: "sub"')
    with caller["snakefile"].open("a") as file:
        file.write('\nrule make:\n    output: "made.fasta"\n    shell: "cp source.fa {output}"\n')
    project.passes(**caller)
    inside = {path.name for path in (project.folder / "sub").iterdir()}
    assert inside == {"results", "logs", "benchmarks"} and not (project.folder / "results").exists()
    assert (project.folder / "sub/results/small/settings.json").exists()
    page = (project.folder / "sub/results/small/report.html").read_text()
    assert "not of this configuration" not in page
    project.passes("embeddings_all", **caller)
    assert len(pd.read_parquet(project.folder / "sub/results/small/embeddings/made.parquet")) == 12
    assert "Nothing to be done" in project.passes("embeddings_all", **caller).output
