"""What Snakemake's workflow catalog and its users expect: a small run, messages, a report with text, the rule graph."""

import re
import shutil

from conftest import ROOT

from .conftest import proteins, without_group


def test_the_small_run_of_the_catalog_makes_its_files(project):
    shutil.copytree(ROOT / ".test/config", project.folder / "config")
    shutil.copytree(ROOT / ".test/data", project.folder / "data")
    config = ("samples=config/samples.tsv",)  # the other keys are in config/config.yaml
    done = project.passes(config=config)
    assert done.output.count("packed-esm: 2 samples, model demo, 1 embed job; results go to results/demo/") == 1
    assert "Validation: passed; 8 rows checked" in done.output and "Not all jobs" not in done.output
    made = {path.name.split(".", 1)[1] for path in project.results.rglob("globins.*")}
    assert made >= {"parquet", "h5ad", "pt", "max_0.h5", "mean_6.npy", "representations.h5", "logits.h5"}
    project.passes("--report", "report.html", config=config)
    page = (project.folder / "report.html").read_text()
    assert "recomputes a sample of the sequences with fair-esm" in page and "Differences from the reference" in page


def test_after_a_failure_a_run_says_where_the_logs_are_and_what_to_do(project):
    project.write_samples(s=">a\nMK\n>a\nMKL\n")
    done = project.fails("--until", "chunk_fasta")
    assert "Not all jobs succeeded; their logs are in logs/demo/. Remove the cause and run the same" in done.output
    assert (project.folder / "logs/demo/chunk_fasta.log").exists()


def test_the_rule_graph_of_the_documents_is_what_the_workflow_prints(project):
    project.write_samples(s=proteins(1))
    config = ("input=nucleotide", "formats=h5", "per_residue=float16")
    printed = project.passes("--rulegraph", "mermaid-js", config=config).stdout
    rules = dict(re.findall(r"^\t(id\d+)\[(\w+)\]$", printed, re.MULTILINE))
    arrows = re.findall(r"^\t(id\d+) --> (id\d+)$", printed, re.MULTILINE)
    names = {node: without_group(rule) for node, rule in rules.items()}
    graph = (ROOT / "docs/reruns.md").read_text().split("```mermaid\nflowchart TB\n")[1].split("```")[0]
    assert "".join(sorted(f"    {names[one]} --> {names[other]}\n" for one, other in arrows)) == graph
