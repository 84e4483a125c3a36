"""The table of outputs: poolings and scalars, which are columns of a sample's table, and residue files.

A row holds all facts about an output: how it is computed from the outputs of the model, its shape (in a pack, over
windows, as stored), its reference, and the measures that compare it with fair-esm. To add a pooling or a scalar, add a
row. For an output for each residue, also make the model and the reference compute it.

The formulas of the references are independent of those of the packed path, so that a mistake in one is detected.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..families import CONTACT_HEAD, LM_HEAD
from .forms import nearest
from .layouts import LAYER_ROWS, MASKED_ROWS, PAIRS, ROWS, SCORED_ROWS, Pairs, Rows
from .marginals import AMINO_ACIDS, MARGINAL_TOKENS, marginals, own_log_probabilities
from .measures import (
    contacts_errors,
    log_softmax,
    logits_errors,
    relative_error,
    root_mean_square,
    root_mean_square_error,
)

Tensor = Any  # of torch, which this package does not import
Errors = dict[str, float | None]  # {name of a measure: value}; None where it cannot be measured


@dataclass(frozen=True)
class Measure:
    """A difference between a result and fair-esm's: a column of the validation's table.

    Attributes:
        name: of the column.
        title: on the report page.
        bound: name of BOUNDS.
        best: 0 for an error, with an upper bound; 1 for a similarity, with a lower bound.
        may_be_absent: it cannot be measured for some sequences.
        axis: label in the figure; empty if it is not drawn.
    """

    name: str
    title: str
    bound: str = "relative_l2"
    best: int = 0
    may_be_absent: bool = False
    axis: str = ""

    def from_best(self, values: Any) -> Any:  # noqa: ANN401
        """Return the distance of values, or bounds, from the best value: 1 - value for a similarity."""
        return 1 - values if self.best == 1 else values


@dataclass(frozen=True)
class Pooling:
    """How the rows of a layer become one vector: one column per layer, `{name}_{layer}`.

    Attributes:
        pool: function from the rows of a sequence, a tensor fp32 [L + 2, E] with cls and eos, to [E].
        reference: the same function for a float64 array.
        may_vanish: the result may be near 0 although the rows are not; then the error is relative to the rows.
        bound: of its error, a name of BOUNDS.
    """

    name: str
    pool: Callable[[Tensor], Tensor]
    reference: Callable[[np.ndarray], np.ndarray]
    may_vanish: bool = False
    bound: str = "relative_l2"

    @property
    def measure(self) -> Measure:
        """The measure of the pooled vectors."""
        return Measure(f"{self.name}_relative_l2", f"{self.name}, relative L2", self.bound)

    def error(self, got: np.ndarray, rows: np.ndarray) -> float:
        """Return the relative error of a vector [E], float32 or float16; `rows`: the reference's, fp32 [L + 2, E]."""
        size, want = root_mean_square(rows[1:-1]) * len(got) ** 0.5, self.reference(rows.astype(np.float64))
        return relative_error(nearest(want, got), want, size if self.may_vanish else None)


@dataclass(frozen=True)
class Scalar:
    """One number per protein: a column. It is a mean over tokens of one forward, or comes from masked copies.

    Attributes:
        head: name of the head that the checkpoint must have.
        errors: function of (value, logits of the reference fp32 [L + 2, tokens], token ids [L + 2]); from masked copies
            the logits of each residue are those with this residue masked.
        forward_keyword: the keyword of `forward_packed` that it needs, if any.
        per_token: function of (outputs of `forward_packed`, `input_ids`) that returns fp32 [total, 1].
        of_masked: function of (logits fp32 [L, tokens], each row with this residue masked, token ids [L]).
    """

    name: str
    head: str
    errors: Callable[[float, np.ndarray, np.ndarray], Errors]
    measures: tuple[Measure, ...]
    forward_keyword: str | None = None
    per_token: Callable[[dict, Tensor], Tensor] | None = None
    of_masked: Callable[[np.ndarray, np.ndarray], float] | None = None


@dataclass(frozen=True)
class ResidueOutput:
    """Values of each residue: one file per sample, `{name}.h5`, with one dataset per protein.

    Attributes:
        layout: its shapes.
        forward_keyword: the keyword of `forward_packed` that it needs, if any.
        head: name of the head that the checkpoint must have, if any.
        errors: function of (stored values, values of the reference in the same shape).
        in_include: the key `include` selects it; `representations` has its own key, `per_residue`, with a dtype.
        of_logits: function of (logits [total, tokens], `input_ids`) for rows [total, width] that are no output of
            `forward_packed`.
        of_masked: function of (logits fp32 [L, tokens], each row with this residue masked, token ids [L]).
        amino_acids: which one each column of a dataset is for, if any; an attribute of the dataset.
    """

    name: str
    layout: Rows | Pairs
    measures: tuple[Measure, ...]
    errors: Callable[[np.ndarray, np.ndarray], Errors]
    forward_keyword: str | None = None
    head: str | None = None
    in_include: bool = True
    of_logits: Callable[[Tensor, Tensor], Tensor] | None = None
    of_masked: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    amino_acids: str = ""


def _by_name(rows: tuple) -> dict:
    return {row.name: row for row in rows}


POOLINGS: Mapping[str, Pooling] = _by_name(
    (
        # mean and bos as by `--include mean bos` of fair-esm's scripts/extract.py; mean, max, std without cls and eos.
        Pooling(
            "mean",
            lambda rows: rows[1:-1].mean(0),
            lambda rows: np.mean(rows[1:-1], axis=0),
            bound="mean_relative_l2",
        ),
        Pooling("max", lambda rows: rows[1:-1].amax(0), lambda rows: np.max(rows[1:-1], axis=0)),
        Pooling(  # of the population: divided by the number of residues, 0 for one residue
            "std",
            lambda rows: rows[1:-1].std(0, correction=0),
            lambda rows: np.std(rows[1:-1], axis=0),
            may_vanish=True,
        ),
        Pooling("bos", lambda rows: rows[0], lambda rows: rows[0]),
        Pooling("eos", lambda rows: rows[-1], lambda rows: rows[-1]),
    )
)


def _mean_log_probability_errors(name: str, got: float, logits: np.ndarray, tokens: np.ndarray) -> Errors:
    """Return the relative error of a mean log-probability of the residues.

    It is near 0 if the model is sure of each residue, but it is a difference of numbers as large as the logits. So the
    error is relative to the larger of both sizes.
    """
    want = log_softmax(logits)[np.arange(1, len(tokens) - 1), tokens[1:-1]].mean()
    size = max(abs(float(want)), root_mean_square(logits[1:-1]))
    return {f"{name}_relative_l2": relative_error(np.array([got]), np.array([want]), size)}


def _sum_errors(name: str, got: float, logits: np.ndarray, tokens: np.ndarray) -> Errors:
    """Return the relative error of the sum of the log-probabilities of the residues, as that of its mean."""
    return _mean_log_probability_errors(name, got / (len(tokens) - 2), logits, tokens)


SCALARS: Mapping[str, Scalar] = _by_name(
    (
        Scalar(
            # The log-probability of the actual residue, in one pass without masks.
            "log_likelihood",
            forward_keyword="need_logits",
            head=LM_HEAD,
            per_token=lambda out, input_ids: out["logits"].log_softmax(-1).gather(1, input_ids[:, None].long()),
            errors=partial(_mean_log_probability_errors, "log_likelihood"),
            measures=(Measure("log_likelihood_relative_l2", "log-likelihood, relative difference"),),
        ),
        Scalar(
            # Salazar et al. 2020 (doi:10.18653/v1/2020.acl-main.240): the sum over positions of the log-probability of
            # the residue with this position masked.
            "pseudo_log_likelihood",
            head=LM_HEAD,
            of_masked=lambda logits, tokens: own_log_probabilities(logits, tokens).sum(),
            errors=partial(_sum_errors, "pseudo_log_likelihood"),
            measures=(Measure("pseudo_log_likelihood_relative_l2", "pseudo-log-likelihood, relative difference"),),
        ),
        Scalar(
            "pseudo_log_likelihood_mean",
            head=LM_HEAD,
            of_masked=lambda logits, tokens: own_log_probabilities(logits, tokens).mean(),
            errors=partial(_mean_log_probability_errors, "pseudo_log_likelihood_mean"),
            measures=(
                Measure("pseudo_log_likelihood_mean_relative_l2", "mean pseudo-log-likelihood, relative difference"),
            ),
        ),
    )
)

RESIDUES: Mapping[str, ResidueOutput] = _by_name(
    (
        ResidueOutput(
            "representations",
            LAYER_ROWS,
            (Measure("representations_relative_l2", "stored residue vectors, relative L2"),),
            lambda got, want: {"representations_relative_l2": relative_error(got, want)},
            in_include=False,
        ),
        ResidueOutput(
            "logits",
            ROWS,
            (
                Measure("logits_relative_l2", "logits, relative L2"),
                Measure(
                    "logits_kl_max",
                    "logits, KL divergence at a residue, nats",
                    "logits_kl_max",
                    axis="logits: KL divergence at a residue, nats",
                ),
                Measure("logits_kl_mean", "logits, KL divergence, mean over residues, nats", "logits_kl_mean"),
            ),
            lambda got, want: {"logits_relative_l2": relative_error(got, want)} | logits_errors(got, want),
            forward_keyword="need_logits",
            head=LM_HEAD,
        ),
        ResidueOutput(
            "contacts",
            PAIRS,
            (
                Measure(
                    "contacts_abs_per_residue",
                    "contacts, sum of absolute differences of probabilities at a residue",
                    "contacts_abs_per_residue",
                    may_be_absent=True,
                    axis="contacts: sum of differences at a residue",
                ),
                Measure(
                    "contacts_precision",
                    "contacts, precision of the top L relative to fair-esm",
                    "contacts_precision",
                    best=1,
                    may_be_absent=True,
                    axis="contacts: 1 - precision of the top L",
                ),
                Measure(
                    "contacts_correlation",
                    "contacts, correlation",
                    "contacts_correlation",
                    best=1,
                    may_be_absent=True,
                    axis="contacts: 1 - correlation",
                ),
            ),
            contacts_errors,
            forward_keyword="return_contacts",
            head=CONTACT_HEAD,
        ),
        ResidueOutput(
            # Meier et al. 2021 (doi:10.1101/2021.07.09.450648): log p(a) - log p(wild type), in one pass without masks.
            # The sum of exponentials that turns logits into probabilities is the same for both.
            "wildtype_marginals",
            SCORED_ROWS,
            (Measure("wildtype_marginals_rms", "wild-type marginals, RMS difference, nats", "marginals_rms"),),
            lambda got, want: {"wildtype_marginals_rms": root_mean_square_error(got, want)},
            forward_keyword="need_logits",
            head=LM_HEAD,
            of_logits=lambda logits, ids: logits[:, MARGINAL_TOKENS] - logits.gather(1, ids[:, None].long()),
            amino_acids=AMINO_ACIDS,
        ),
        ResidueOutput(
            # The same with the position masked: the masked marginals of Meier et al.
            "masked_marginals",
            MASKED_ROWS,
            (Measure("masked_marginals_rms", "masked marginals, RMS difference, nats", "marginals_rms"),),
            lambda got, want: {"masked_marginals_rms": root_mean_square_error(got, want)},
            head=LM_HEAD,
            of_masked=marginals,
            amino_acids=AMINO_ACIDS,
        ),
    )
)

# Over positions of each compared sequence that validation also masks in fair-esm.
MASKED_MEASURE = Measure(
    "masked_kl_max",
    "masked copies, KL divergence at the masked residue, nats",
    "logits_kl_max",
    axis="masked copies: KL divergence at the masked residue, nats",
)

INCLUDE = (*SCALARS, *(name for name, output in RESIDUES.items() if output.in_include))
RESIDUE_DTYPES = ("float16", "float32", "int8")  # of representations in residue files
OTHER_DTYPES = ("float32", "float16")  # of other outputs in residue files, and of pooled vectors
CONTACT_MAPS = ("square", "triangle")

LAYER_MEASURES = (
    Measure("relative_l2", "relative L2", axis="relative L2 of the sequence"),
    Measure(
        "min_residue_cosine",
        "cosine of the worst residue",
        "residue_cosine",
        best=1,
        axis="1 - cosine of its worst residue",
    ),
)
SEQUENCE_MEASURES = (
    *(measure for output in (*SCALARS.values(), *RESIDUES.values()) for measure in output.measures),
    MASKED_MEASURE,
)
MEASURES: Mapping[str, Measure] = _by_name(
    (*LAYER_MEASURES, *(x.measure for x in POOLINGS.values()), *SEQUENCE_MEASURES)
)


def included(name: str) -> Scalar | ResidueOutput:
    """Return the output with a name of the key `include`."""
    return SCALARS[name] if name in SCALARS else RESIDUES[name]


def needs_masked_copies(include: Iterable[str]) -> bool:
    """Return whether one of the outputs comes from masked copies."""
    return any(included(name).of_masked for name in include)
