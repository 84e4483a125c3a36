"""Scores of variants: the numbers of fair-esm's own program, each convention one sequence at a time, and errors."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2, small_card
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.masked import MaskedCopies
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import SheetError
from packed_esm.outputs.marginals import own_log_probabilities
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.tokens import tokenize
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.validation.reference_model import reference_tokens
from packed_esm.variants.options import SCORES, VariantOptions
from packed_esm.variants.score import score_variants

GOLDEN = json.loads((ROOT / "tests/variant_scores.json").read_text())
PROTEINS = {
    "s": {"a": "MVLSPADKTNVKAAWGKV", "long": "ACDEFGHIKLMNPQRSTVWY" * 2, "twin": "MVLSPADKTNVKAAWGKV"},
    "t": {"a": "MKXAYI<mask>KQ", "unused": "GGGGGG"},
}
ALL = VariantOptions(SCORES)


@pytest.fixture
def run(tmp_path):
    """Return a function that scores a table of variants of PROTEINS, and returns the TSV; it has the model."""
    model = random_esm2(num_layers=2, embed_dim=32, heads=2)
    options = EmbedOptions(save_fair_esm(model, tmp_path / "esm2_small.pt"), device="cpu", tokens_per_pack=128)

    def again(text, options=options, scores=ALL, proteins=PROTEINS, name="v.tsv"):
        samples = []
        for sample, records in proteins.items():
            samples.append((sample, tmp_path / f"{sample}.fasta"))
            samples[-1][1].write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
        chunks = [tmp_path / "chunks" / f"{i}.fasta" for i in (1, 2)]
        chunk_samples(samples, chunks, tmp_path / "m", tmp_path / "r", tmp_path / "c.json")
        (tmp_path / name).write_text(text)
        again.summary = score_variants(
            tmp_path / name, tmp_path / "m", chunks, tmp_path / "out.tsv", tmp_path / "out.json", options, scores
        )
        return pd.read_csv(tmp_path / "out.tsv", sep="\t", dtype={"id": str, "sample": str})

    again.model, again.options, again.folder = model, options, tmp_path
    return again


def table(*rows):
    return "\n".join(["sample\tid\tmutations", *("\t".join(row) for row in rows)]) + "\n"


ROWS = [
    ("s", "long", "Y40A"),
    ("s", "a", "M1A"),
    ("t", "a", "X3L:K8R"),
    ("s", "twin", "A6G:K17R:V2L"),
    ("s", "long", "D3D"),
    ("t", "a", "I6W"),
]


def log_probabilities(model, tokens, masked=None):
    """Return fair-esm's log-probabilities of one sequence, fp64 [T, 33]; `masked`: a position from 1."""
    batch = torch.from_numpy(tokens)[None].clone()
    if masked is not None:
        batch[0, masked] = model.mask_idx
    with torch.inference_mode():
        return model(batch)["logits"][0].double().log_softmax(-1)


def pseudo_log_likelihood(model, tokens):
    places = range(1, len(tokens) - 1)
    return sum(float(log_probabilities(model, tokens, i)[i, tokens[i]]) for i in places)


def of_fair_esm(model, sequence, mutations):
    """Return the three scores, from fair-esm's forward of one sequence at a time."""
    tokens = reference_tokens(sequence)
    mutant = tokens.copy()
    unmasked = log_probabilities(model, tokens)
    masked_sum = wildtype_sum = 0.0
    for mutation in mutations.split(":"):
        place, token = int(mutation[1:-1]), int(reference_tokens(mutation[-1])[1])
        masked = log_probabilities(model, tokens, place)
        masked_sum += float(masked[place, token] - masked[place, tokens[place]])
        wildtype_sum += float(unmasked[place, token] - unmasked[place, tokens[place]])
        mutant[place] = token
    return [masked_sum, wildtype_sum, pseudo_log_likelihood(model, mutant) - pseudo_log_likelihood(model, tokens)]


def test_each_convention_is_fair_esms_own_forward_of_one_sequence_at_a_time(run):
    scored = run(table(*ROWS))
    assert scored.columns.tolist() == ["sample", "id", "mutations", *SCORES]
    assert list(scored[["sample", "id", "mutations"]].itertuples(index=False, name=None)) == ROWS
    for row in scored.itertuples():
        want = of_fair_esm(run.model, PROTEINS[row.sample][row.id], row.mutations)
        assert [row.masked_marginal, row.wildtype_marginal] == pytest.approx(want[:2], rel=1e-5, abs=2e-5)
        assert row.pseudo_log_likelihood == pytest.approx(want[2], rel=1e-4, abs=1e-4)
    assert (scored.loc[4, list(SCORES)] == 0).all()


@pytest.fixture
def golden(run):
    rows = [("s", "hba", mutation) for mutation in GOLDEN["mutations"]]
    scored = run(table(*rows), EmbedOptions(DEMO_PATH, device="cpu"), proteins={"s": {"hba": GOLDEN["sequence"]}})
    assert scored["mutations"].tolist() == GOLDEN["mutations"]
    return scored


@pytest.mark.parametrize(
    ("score", "strategy"), [("masked_marginal", "masked-marginals"), ("wildtype_marginal", "wt-marginals")]
)
def test_scores_are_the_numbers_of_fair_esms_program(golden, score, strategy):
    assert golden[score].tolist() == pytest.approx(GOLDEN[strategy], rel=1e-5, abs=2e-5)


def test_pseudo_likelihoods_have_the_log_probabilities_of_fair_esms_program():
    """Its `pseudo-ppl` masks residue i and reads the probability of residue i + 1, for all but the last two."""
    sequence, embedder = GOLDEN["sequence"], Embedder(EmbedOptions(DEMO_PATH, device="cpu"))
    mutants = []
    for mutation in GOLDEN["mutations"]:
        place = int(mutation[1:-1])
        mutants.append(tokenize(sequence[: place - 1] + mutation[-1] + sequence[place:]))
    names = GOLDEN["mutations"]
    found = dict(MaskedCopies(embedder, mutants, names).logits())
    sums = [own_log_probabilities(found[i][:-2], one[2:-2]).sum() for i, one in enumerate(mutants)]
    assert sums == pytest.approx(GOLDEN["pseudo-ppl"], rel=1e-5)


def test_proteingyms_tables_find_the_wild_type_by_its_sequence(run):
    a, long = PROTEINS["s"]["a"], PROTEINS["s"]["long"]
    lines = [f'V2L:A6G,{a[0]}L{a[2:5]}G{a[6:]},"0.5, or so"', f"Y40W,{long[:-1]}W,2"]
    scored = run("\n".join(["mutant,mutated_sequence,DMS_score", *lines]), name="v.csv")
    assert scored.columns.tolist() == ["sample", "id", "mutant", "DMS_score", *SCORES]
    assert scored["id"].tolist() == ["a", "long"] and scored["DMS_score"].tolist() == ["0.5, or so", "2"]
    same = run(table(("s", "a", "V2L:A6G"), ("s", "long", "Y40W")))
    assert np.array_equal(scored[list(SCORES)], same[list(SCORES)])


def test_scores_do_not_depend_on_the_other_rows_to_the_bit(run):
    whole = run(table(*ROWS))
    for number, row in enumerate(ROWS):
        alone = run(table(row))
        assert (alone.loc[0, list(SCORES)] == whole.loc[number, list(SCORES)]).all()


def test_only_mutated_positions_are_masked_and_only_proteins_with_variants_run(run, monkeypatch):
    copies, embedded = [], []
    logits, embed = MaskedCopies.logits, Embedder.embed
    monkeypatch.setattr(MaskedCopies, "logits", lambda self, *a: copies.append(self.count) or logits(self, *a))
    monkeypatch.setattr(Embedder, "embed", lambda self, t, *a: embedded.append(len(t)) or embed(self, t, *a))
    run(table(*ROWS), scores=VariantOptions())
    assert copies == [2 + 4 + 3] and embedded == [3]  # long, a with its twin, a of t
    assert run.summary["proteins"] == 3 and run.summary["variants"] == 6


def test_long_proteins_are_scored_in_the_window_of_each_position(run):
    windows = ResidueWindows(16, 6)
    scored = run(
        table(*(("s", "long", f"{wild}{i}W") for i, wild in enumerate(PROTEINS["s"]["long"], 1))),
        replace(run.options, windows=windows),
        VariantOptions(),
    )
    for position, number in enumerate(windows.scoring(40)):
        start = windows.starts(40)[number]
        window, wild = PROTEINS["s"]["long"][start : start + 16], PROTEINS["s"]["long"][position]
        want = of_fair_esm(run.model, window, f"{wild}{position - start + 1}W")
        found = scored.loc[position, ["masked_marginal", "wildtype_marginal"]].tolist()
        assert found == pytest.approx(want[:2], rel=1e-5, abs=2e-5)


def test_out_of_memory_starts_again_with_half_the_budget(run, monkeypatch, caplog):
    want = run(table(*ROWS), replace(run.options, tokens_per_pack=1024))
    small_card(monkeypatch)
    found = run(table(*ROWS), replace(run.options, tokens_per_pack=4096))
    assert "retrying with 1024" in caplog.text and run.summary["settings"]["tokens_per_pack"] == 1024
    assert found.equals(want)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("s", "a", "A2L"), r"v.tsv, line 3: A2L does not fit s\|a, which has V at position 2"),
        (("t", "a", "A7L"), r"v.tsv, line 3: A7L does not fit t\|a, which has <mask> at position 7"),
        (("s", "a", "V2L:V19A"), r"v.tsv, line 3: V19A is beyond the end of s\|a, of which 18 residues were embedded"),
        (("s", "a", "V0L"), "v.tsv, line 3: 'V0L' is not a mutation; write the residue, its position from 1"),
        (("s", "a", "V2B"), "v.tsv, line 3: 'V2B' is not a mutation"),
        (("s", "a", "V2"), "v.tsv, line 3: 'V2' is not a mutation"),
        (("s", "a", "V2L,A6G"), "v.tsv, line 3: 'V2L,A6G' is not a mutation"),
        (("s", "a", "V2L:"), "v.tsv, line 3: '' is not a mutation"),
        (("s", "a", "V2L:V2G"), "v.tsv, line 3: two mutations of position 2 in 'V2L:V2G'"),
        (("u", "a", "V2L"), "v.tsv, line 3: there is no sample 'u' with proteins; there are s, t"),
        (("s", "b", "V2L"), "v.tsv, line 3: sample s has no protein 'b' that was embedded"),
        (("s", "a"), "v.tsv, line 3: the row .* has not as many cells as the header"),
    ],
)
def test_a_mistake_is_named_by_file_and_line_and_what_stands_there(run, row, message):
    with pytest.raises(SheetError, match=message):
        run(table(("s", "a", "V2L"), row))
    assert not (run.folder / "out.tsv").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("V2L,MVLSPADKTNVKAAWGKV", "v.csv, line 2: mutated_sequence has V at position 2, which does not fit V2L"),
        ("V99L,MLLS", "v.csv, line 2: V99L is beyond the end of mutated_sequence, which has 4 residues"),
        ("V2L,MLLS", "v.csv, line 2: mutated_sequence with its mutations undone is no sequence that was embedded"),
        ("V2L,MÄLS", "v.csv, line 2: mutated_sequence has Ä at position 2"),
        ("V2L,MLÄS", "v.csv, line 2: mutated_sequence has letters that are not residues"),
        ("V2L,MLLS,1", "v.csv, line 2: the row has not as many cells as the header"),
    ],
)
def test_a_mutated_sequence_that_does_not_fit_is_named_by_line(run, row, message):
    with pytest.raises(SheetError, match=message):
        run(f"mutant,mutated_sequence\n{row}\n", name="v.csv")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("sample\tid\tmutation", "v.tsv: no column `mutations` in its header"),
        ("id", "v.tsv: no column `sample` in its header"),
        ("sample\tid\tmutations\tmasked_marginal", "v.tsv: the column `masked_marginal` has the name of a score"),
        ("mutant,mutated_sequence,mutant", "v.tsv: two columns 'mutant'"),
    ],
)
def test_a_header_without_what_is_needed_is_refused(run, header, message):
    with pytest.raises(SheetError, match=message):
        run(header + "\n")


def test_an_empty_table_gives_an_empty_table(run):
    for scores in product(SCORES):
        assert run(table(), scores=VariantOptions(scores)).columns.tolist()[-1] == scores[0]
