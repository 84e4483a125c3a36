"""What a stranger finds: links that lead somewhere, one version everywhere, what the workflow catalog asks for."""

import importlib
import json
import re
import tomllib

import packed_esm
import pytest
import yaml
from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page):
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_every_page_of_docs_is_found_from_the_readme():
    linked = "".join(page.read_text() for page in PAGES[:2])
    assert all(f"docs/{page.name}" in linked for page in PAGES[2:])


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert packed_esm.__version__ == version == citation["version"]
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_has_what_the_catalog_asks_for():
    """https://github.com/snakemake/snakemake-workflow-catalog, "Standardized usage workflows"."""
    assert (ROOT / "workflow/Snakefile").exists() and list((ROOT / "workflow/rules").glob("*.smk"))
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage["mandatory-flags"]) == {"desc", "flags"} and usage["report"]
    rules = [rule for path in (ROOT / "workflow/rules").glob("*.smk") for rule in path.read_text().split("rule ")[1:]]
    assert usage["software-stack-deployment"]["conda"] and all("conda:" in rule for rule in rules)


def test_the_table_of_models_is_what_the_measurements_give(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/benchmarks"))
    assert importlib.import_module("proteome").table() in (ROOT / "README.md").read_text()


def test_the_table_of_sizes_is_what_its_program_computes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/benchmarks"))
    sizes = importlib.import_module("sizes")
    assert sizes.table() in (ROOT / "docs/using.md").read_text()
    assert 0.75 * sizes.OVERHEAD < sizes.hdf5_bytes_per_dataset() < sizes.OVERHEAD


@pytest.mark.parametrize(
    ("page", "first_row", "least"),
    [
        ("README.md", "fair-esm fp32, batches", 9),
        ("docs/speed.md", "fair-esm fp32, batches", 9),
        ("docs/speed.md", "| with | residues/s", 5),
        ("docs/speed.md", "| model, limit of GPU memory |", 6),
        ("docs/families.md", "| residues/s on one H200", 15),
    ],
)
def test_every_rate_in_a_table_stands_in_the_results_of_the_benchmarks(page, first_row, least):
    files = [json.loads(path.read_text()) for path in (ROOT / "tests/benchmarks/results").glob("*.json")]
    rows = [row for file in files for row in file["rows"] if "residues_per_second" in row]
    measured = {f"{row['residues_per_second']:,.0f}" for row in rows}
    tables = (ROOT / page).read_text().split(first_row)[1].split("\n\n## ")[0]
    cells = [cell.strip(" *\\") for line in tables.splitlines() if "|" in line for cell in line.split("|")[1:]]
    rates = [cell for cell in cells if re.fullmatch(r"[\d,]{3,}", cell)]
    assert len(rates) >= least and set(rates) <= measured


@pytest.mark.parametrize("page", ["README.md", "docs/using.md", "docs/other-tools.md", "docs/clusters.md"])
def test_no_command_has_a_list_that_a_shell_takes_for_a_pattern(page):
    """An unquoted `key=[a,b]` is a pattern to zsh, which stops where no file matches it."""
    commands = re.sub(r"```python\n.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    assert set(re.findall(r"(.)\b\w+=[\[{]", commands)) <= {"'"}
