"""The table of outputs: poolings and scalars, which are columns of a sample's table, and files for each residue.

A row says all that programs need to know of an output: how it is computed from what the model gave, its shape (in a
pack, over windows, as stored), its reference, and the measures by which it is compared with fair-esm. To add a pooling
or a scalar is to add a row; an output for each residue also needs the model, and the reference, to compute it.

The formulas of the references are written apart from those of the packed path, so that a mistake in one is seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layouts import LAYER_ROWS, PAIRS, ROWS, Pairs, Rows
from .measures import contacts_errors, log_softmax, logits_errors, relative_error, root_mean_square

Tensor = Any  # of torch, which this package does not import
Errors = dict[str, float | None]  # {name of a measure: value}; None where it cannot be measured

LM_HEAD, CONTACT_HEAD = "lm_head", "contact_head"


@dataclass(frozen=True)
class Measure:
    """How far a result is from fair-esm's: a column of the validation's table.

    Attributes:
        name: of the column.
        title: for the page.
        bound: name of BOUNDS.
        best: 0 for an error, which the bound limits from above; 1 for a likeness, limited from below.
        may_be_absent: there are sequences of which it cannot be measured.
        rounded: of what is stored in the dtype of a file for each residue, whose rounding adds to the bound.
        axis: label in the figure; empty where it is not drawn.
    """

    name: str
    title: str
    bound: str = "relative_l2"
    best: int = 0
    may_be_absent: bool = False
    rounded: bool = False
    axis: str = ""


@dataclass(frozen=True)
class Pooling:
    """How the rows of a layer become one vector: a column a layer, `{name}_{layer}`.

    Attributes:
        of: of a sequence's rows, a tensor fp32 [L + 2, E] with cls and eos, to [E].
        reference: the same of an array, float64.
        may_vanish: it may be near 0 where the residues are not, and is measured against their size then.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    reference: Callable[[np.ndarray], np.ndarray]
    may_vanish: bool = False

    @property
    def measure(self) -> Measure:
        """The measure of the pooled vectors."""
        return Measure(f"{self.name}_relative_l2", f"{self.name}, relative L2")

    def error(self, got: np.ndarray, rows: np.ndarray) -> float:
        """Return the relative error of a vector [E]; `rows`: the reference's, fp32 [L + 2, E]."""
        size = root_mean_square(rows[1:-1]) * len(got) ** 0.5
        return relative_error(got, self.reference(rows.astype(np.float64)), size if self.may_vanish else None)


@dataclass(frozen=True)
class Scalar:
    """A number a protein, the mean over its residues: a column.

    Attributes:
        asks: the keyword of `forward_packed` that it needs.
        head: that the checkpoint must have.
        of_tokens: of what `forward_packed` gave and `input_ids`, to fp32 [total, 1].
        errors: of (value, the reference's logits fp32 [L + 2, tokens], token ids [L + 2]).
    """

    name: str
    asks: str
    head: str
    of_tokens: Callable[[dict, Tensor], Tensor]
    errors: Callable[[float, np.ndarray, np.ndarray], Errors]
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class ResidueOutput:
    """Values of each residue: a file a sample, `{name}.h5`, a dataset a protein.

    Attributes:
        layout: its shapes.
        asks: the keyword of `forward_packed` that it needs, if any.
        head: that the checkpoint must have, if any.
        errors: of (stored, the reference's in the stored shape).
        in_include: it is named by the key `include`; `representations` has its key, `per_residue`, and a dtype.
    """

    name: str
    layout: Rows | Pairs
    measures: tuple[Measure, ...]
    errors: Callable[[np.ndarray, np.ndarray], Errors]
    asks: str | None = None
    head: str | None = None
    in_include: bool = True


def _by_name(rows: tuple) -> dict:
    return {row.name: row for row in rows}


POOLINGS: Mapping[str, Pooling] = _by_name(
    (
        # As `--include mean bos` of fair-esm's scripts/extract.py; all but bos and eos are over the residues alone.
        Pooling("mean", lambda rows: rows[1:-1].mean(0), lambda rows: np.mean(rows[1:-1], axis=0)),
        Pooling("max", lambda rows: rows[1:-1].amax(0), lambda rows: np.max(rows[1:-1], axis=0)),
        Pooling(  # of the population: divided by the number of residues, 0 of one residue
            "std",
            lambda rows: rows[1:-1].std(0, correction=0),
            lambda rows: np.std(rows[1:-1], axis=0),
            may_vanish=True,
        ),
        Pooling("bos", lambda rows: rows[0], lambda rows: rows[0]),
        Pooling("eos", lambda rows: rows[-1], lambda rows: rows[-1]),
    )
)


def _log_likelihood_errors(got: float, logits: np.ndarray, tokens: np.ndarray) -> Errors:
    """Return the relative error of a log-likelihood.

    It is near 0 where the model is sure of each residue, and a difference of numbers as large as the logits: it is
    measured against them where they are the larger.
    """
    want = log_softmax(logits)[np.arange(1, len(tokens) - 1), tokens[1:-1]].mean()
    size = max(abs(float(want)), root_mean_square(logits[1:-1]))
    return {"log_likelihood_relative_l2": relative_error(np.array([got]), np.array([want]), size)}


SCALARS: Mapping[str, Scalar] = _by_name(
    (
        Scalar(
            # The log-probability that the model gives to the residue that is there, in one pass without masks.
            "log_likelihood",
            asks="need_logits",
            head=LM_HEAD,
            of_tokens=lambda out, input_ids: out["logits"].log_softmax(-1).gather(1, input_ids[:, None].long()),
            errors=_log_likelihood_errors,
            measures=(Measure("log_likelihood_relative_l2", "log-likelihood, relative"),),
        ),
    )
)

RESIDUES: Mapping[str, ResidueOutput] = _by_name(
    (
        ResidueOutput(
            "representations",
            LAYER_ROWS,
            (Measure("representations_relative_l2", "residues as stored, relative L2", rounded=True),),
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
            asks="need_logits",
            head=LM_HEAD,
        ),
        ResidueOutput(
            "contacts",
            PAIRS,
            (
                Measure(
                    "contacts_abs_per_residue",
                    "contacts, differences of a residue (sum of probabilities)",
                    "contacts_abs_per_residue",
                    may_be_absent=True,
                    axis="contacts: differences of a residue",
                ),
                Measure(
                    "contacts_precision",
                    "contacts, precision of the L likeliest as a share of fair-esm's",
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
            asks="return_contacts",
            head=CONTACT_HEAD,
        ),
    )
)

INCLUDE = (*SCALARS, *(name for name, output in RESIDUES.items() if output.in_include))
RESIDUE_DTYPES = ("float16", "float32")  # of representations of each residue

OF_LAYERS = (Measure("relative_l2", "relative L2"), Measure("min_residue_cosine", "cosine", "residue_cosine", best=1))
OF_SEQUENCES = tuple(measure for output in (*SCALARS.values(), *RESIDUES.values()) for measure in output.measures)
MEASURES: Mapping[str, Measure] = _by_name((*OF_LAYERS, *(x.measure for x in POOLINGS.values()), *OF_SEQUENCES))


def included(name: str) -> Scalar | ResidueOutput:
    """Return the output that a word of the key `include` names."""
    return SCALARS[name] if name in SCALARS else RESIDUES[name]
