"""Scores of variants in a run: they are there, and run again only where something that determines them changed."""

import json

import pandas as pd
import pytest

from .conftest import proteins

KEYS = ("variants=v.tsv", "device=cpu", "dtype=fp32")


def table(folder, *rows):
    lines = ["sample\tid\tmutations\tmeasured", *("\t".join(row) for row in rows)]
    (folder / "v.tsv").write_text("\n".join(lines) + "\n")


def planned(project, *config):
    """Return the rules that a configuration would run."""
    done = project.passes("--dry-run", config=config)
    names = ("chunk_fasta", "embed_chunk", "score_variants", "validate", "make_report")
    return {name for name in names if f"rule {name}:" in done.output}


@pytest.fixture
def scored(project):
    project.write_samples(s=">a\nMVLSPADKTNVKAAWGKV\n>b\nMKTAYIAKQR\n", t=proteins(3, longest=30))
    table(project.folder, ("s", "b", "K2R:T3S", "0.1"), ("s", "a", "V2L", "high"))
    project.passes(config=KEYS)
    return project


def test_scores_are_written_and_run_again_only_for_what_determines_them(scored):
    path = scored.results / "variants.tsv"
    first = pd.read_csv(path, sep="\t")
    assert first.columns.tolist() == ["sample", "id", "mutations", "measured", "masked_marginal", "wildtype_marginal"]
    assert first["measured"].tolist() == ["0.1", "high"]
    summary = json.loads((scored.results / "variants.json").read_text())
    assert summary["variants"] == summary["proteins"] == 2 and summary["settings"]["dtype"] == "fp32"
    assert planned(scored, *KEYS) == set()
    others = planned(scored, *KEYS, "layers=[0]", "pooling=[max]", "include=[log_likelihood]")
    assert "embed_chunk" in others and "score_variants" not in others
    assert "score_variants" in planned(scored, *KEYS, "tokens_per_pack=512")
    assert planned(scored, *KEYS, "variant_scores=[pseudo_log_likelihood]") == {"score_variants"}
    table(scored.folder, ("s", "a", "V2L", "high"))
    assert planned(scored, *KEYS) == {"score_variants"}
    scored.passes(config=KEYS)
    again = pd.read_csv(path, sep="\t")
    columns = ["masked_marginal", "wildtype_marginal"]
    assert again.loc[0, columns].tolist() == first.loc[1, columns].tolist()


def test_a_mistake_in_the_table_stops_with_its_line(scored):
    table(scored.folder, ("s", "a", "V2L", ""), ("s", "a", "A2L", ""))
    done = scored.fails(config=KEYS)
    log = (scored.folder / "logs/demo/score_variants.log").read_text()
    assert "v.tsv, line 3: A2L does not fit s|a, which has V at position 2" in log + done.output
    assert not (scored.results / "variants.tsv").exists()


def test_a_table_that_is_not_there_stops_before_anything_runs(project):
    project.write_samples(s=proteins(2))
    done = project.fails(config=("variants=gone.tsv",))
    assert "variants: there is no table gone.tsv" in done.output and not (project.folder / "logs").exists()
