"""The workflow as a module of another one: every kind of result can be its input, and a remote one says what to do."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2, random_sequence

SNAKEFILE = """
module embeddings:
    snakefile: "{snakefile}"
    config: {config}

use rule * from embeddings as embeddings_*

rule done:
    default_target: True
    input: {wanted}
    output: "done.txt"
    shell: "touch {{output}}"
"""


def write_caller(project, config, wanted=(), snakefile=ROOT / "workflow/Snakefile"):
    caller = project.folder / "Snakefile"
    caller.write_text(SNAKEFILE.format(snakefile=snakefile, config=config, wanted=list(wanted)))
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
    caller = write_caller(project, {"samples": "samples.tsv"}, ["mine/embeddings/s.parquet"])
    text = caller["snakefile"].read_text()
    caller["snakefile"].write_text(text.replace("    config:", '    pathvars: results="mine"\n    config:'))
    project.passes(**caller)
    assert (project.folder / "mine/settings.json").exists() and not (project.folder / "results").exists()
    assert "Nothing to be done" in project.passes(**caller).output


def test_a_module_that_is_no_local_clone_says_to_make_one(project):
    clone = project.folder / "remote"
    (clone / "workflow").mkdir(parents=True)
    for folder in ("config", "workflow/rules"):
        shutil.copytree(ROOT / folder, clone / folder)
    shutil.copy(ROOT / "workflow/Snakefile", clone / "workflow")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *arguments], cwd=clone, check=True)
    project.write_samples(s=">a\nMKV\n")
    caller = write_caller(project, {}, snakefile=f"git+file://{clone}/workflow/Snakefile@HEAD")
    assert "so clone the repository and name the clone's workflow/Snakefile" in project.fails(**caller).output
