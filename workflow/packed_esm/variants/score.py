"""Score variants with a model.

The definitions, each the score of the mutant minus that of the wild type:

- masked_marginal (Meier et al. 2021, doi:10.1101/2021.07.09.450648): sum over the mutations of
  log p(mutant) - log p(wild type), each position masked alone in the wild type.
- wildtype_marginal (the same paper): the same sum, from one pass of the wild type without a mask.
- pseudo_log_likelihood (Salazar et al. 2020, doi:10.18653/v1/2020.acl-main.240): difference of the sums over all
  positions of log p(residue), each position masked alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..embedding.attempts import with_smaller_packs
from ..embedding.embedder import Embedder
from ..embedding.masked import MaskedCopies
from ..embedding.options import EmbedOptions
from ..embedding.reading import Sequences, check_lengths
from ..outputs.marginals import AMINO_ACIDS, marginals, own_log_probabilities
from ..sequences.tokens import tokenize
from ..system.files import replacing, sha256, write_json
from ..system.progress import progress_bar
from .options import MASKED, OF_EMBEDDINGS, PSEUDO, WILD_TYPE, VariantOptions
from .proteins import Targets, find_targets
from .table import Mutation, VariantTable, read_variants

log = logging.getLogger(__name__)

Marginals = list[np.ndarray]  # float32 [positions, 20] of each protein


def score_variants(
    table_path: Path,
    manifest_path: Path,
    chunks: Sequence[Path],
    out: Path,
    summary_path: Path,
    options: EmbedOptions,
    scores: VariantOptions,
) -> dict:
    """Write the scores of variants: a TSV, one row per variant in the order of the table; and a summary, JSON.

    Only proteins that have variants are run, and only mutated positions are masked, except for pseudo-likelihoods.

    Args:
        table_path: variants, see `variants.table`.
        manifest_path, chunks: manifest, and FASTA files of the embed jobs, of the run that has the proteins.
        out: TSV: the columns of the table, `sample` and `id`, and a column per score.
        summary_path: settings, digest of the table, and counts.
        options: of the model; what concerns embeddings alone is ignored.
        scores: which ones.

    Raises:
        SheetError: a mistake in the table; the message names the line.
    """
    table = read_variants(table_path)
    targets = find_targets(table, manifest_path, chunks)
    log.info("%s: %d variants of %d proteins", table_path, len(table.variants), len(targets.proteins.tokens))
    embedder = Embedder(replace(options, include=("wildtype_marginals",), layers=(-1,), poolings=("mean",)))
    check_lengths(manifest_path, embedder, targets.proteins)
    columns = with_smaller_packs(embedder, targets.proteins, lambda: _columns(embedder, table, targets, scores.scores))
    rows = table.rows.drop(columns=["sample", "id"], errors="ignore")
    rows.insert(0, "sample", targets.samples)
    rows.insert(1, "id", targets.ids)
    for name, values in columns.items():
        rows[name] = values
    with replacing(out) as temporary:
        rows.to_csv(temporary, sep="\t", index=False, float_format="%.9g")
    summary = {
        "variants": len(table.variants),
        "proteins": len(targets.proteins.tokens),
        "table_sha256": sha256(table_path),
        "scores": list(scores.scores),
        "settings": {key: value for key, value in embedder.settings.items() if key not in OF_EMBEDDINGS},
    }
    write_json(summary_path, summary)
    return summary


def _columns(
    embedder: Embedder, table: VariantTable, targets: Targets, scores: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Return {score: float64 [variants]}."""
    mutations = [variant.mutations for variant in table.variants]
    positions = _mutated_positions(mutations, targets)
    columns = {}
    for name in scores:
        if name == PSEUDO:
            columns[name] = _pseudo_differences(embedder, mutations, targets)
            continue
        of_each = {MASKED: _masked_marginals, WILD_TYPE: _wildtype_marginals}[name]
        found = of_each(embedder, targets.proteins, positions)
        columns[name] = np.array(
            [
                _sum_of(found[owner], positions[owner], some)
                for owner, some in zip(targets.owners, mutations, strict=True)
            ],
            dtype=np.float64,
        )
    return columns


def _mutated_positions(mutations: Sequence[Sequence[Mutation]], targets: Targets) -> list[np.ndarray]:
    """Return the positions of each protein that some variant mutates, sorted, from 0."""
    found: list[set[int]] = [set() for _ in targets.proteins.tokens]
    for owner, some in zip(targets.owners, mutations, strict=True):
        found[owner] |= {mutation.position - 1 for mutation in some}
    return [np.array(sorted(one), dtype=np.int64) for one in found]


def _sum_of(found: np.ndarray, positions: np.ndarray, mutations: Sequence[Mutation]) -> float:
    """Return the sum over mutations of their marginals, in the order of the mutations."""
    rows = np.searchsorted(positions, [mutation.position - 1 for mutation in mutations])
    columns = [AMINO_ACIDS.index(mutation.mutant) for mutation in mutations]
    return float(found[rows, columns].astype(np.float64).sum())


def _masked_marginals(embedder: Embedder, proteins: Sequences, positions: Sequence[np.ndarray]) -> Marginals:
    copies = MaskedCopies(embedder, proteins.tokens, proteins.names, positions)
    found: Marginals = [np.empty(0)] * len(proteins.tokens)
    with progress_bar(copies.count, "masked copies", "masked marginals") as bar:
        for index, logits in copies.logits(bar.update):
            found[index] = marginals(logits, proteins.tokens[index][positions[index] + 1])
    return found


def _wildtype_marginals(embedder: Embedder, proteins: Sequences, positions: Sequence[np.ndarray]) -> Marginals:
    found: Marginals = [np.empty(0)] * len(proteins.tokens)

    def keep(index: int, out: dict) -> None:
        found[index] = out["wildtype_marginals"][1:-1].numpy(force=True)[positions[index]]

    with progress_bar(embedder.residues(proteins.tokens), "residues", "wild-type marginals") as bar:
        result = embedder.embed(proteins.tokens, keep, bar.update)
    embedder.recompute(result, proteins.tokens, proteins.names, keep)
    return found


def _pseudo_differences(embedder: Embedder, mutations: Sequence[Sequence[Mutation]], targets: Targets) -> np.ndarray:
    """Return the pseudo-log-likelihood of each mutant minus that of its wild type; equal mutants are run once."""
    tokens, names = list(targets.proteins.tokens), list(targets.proteins.names)
    places: dict[bytes, int] = {one.tobytes(): i for i, one in enumerate(tokens)}
    mutants = []
    for owner, some in zip(targets.owners, mutations, strict=True):
        mutant = _mutated(targets.proteins.tokens[owner], some)
        place = places.setdefault(mutant.tobytes(), len(tokens))
        if place == len(tokens):
            tokens.append(mutant)
            names.append(f"{targets.proteins.names[owner]} {':'.join(map(str, some))}")
        mutants.append(place)
    copies = MaskedCopies(embedder, tokens, names)
    sums = np.empty(len(tokens))
    with progress_bar(copies.count, "masked copies", "pseudo-log-likelihoods") as bar:
        for index, logits in copies.logits(bar.update):
            sums[index] = own_log_probabilities(logits, tokens[index][1:-1]).sum()
    return sums[np.array(mutants, dtype=np.int64)] - sums[targets.owners]


def _mutated(tokens: np.ndarray, mutations: Sequence[Mutation]) -> np.ndarray:
    mutant = tokens.copy()
    for mutation in mutations:
        mutant[mutation.position] = tokenize(mutation.mutant)[1]
    return mutant
