"""What can be computed of a sequence: poolings, columns, values of each residue, and layers."""

from collections.abc import Iterable

from .errors import OptionError

POOLINGS = ("mean", "bos", "max", "eos", "std")  # std is the population's: divided by the residues, 0 of one
LOG_LIKELIHOOD = "log_likelihood"  # a column of one number
INCLUDE = (LOG_LIKELIHOOD, "logits", "contacts")
FEATURES = ("representations", "logits", "contacts")
RESIDUE_DTYPES = ("float16", "float32")  # of representations of each residue


def column_names(settings: dict) -> list[str]:
    """Return the names of the embedding columns, `mean_33` and so on, in their order."""
    pooled = [f"{pooling}_{layer}" for layer in settings["layers"] for pooling in settings["pooling"]]
    return pooled + [name for name in settings.get("include", ()) if name == LOG_LIKELIHOOD]


def resolve_layers(repr_layers: Iterable[int], num_layers: int) -> list[int]:
    """Return layer indices as fair-esm counts them, 0 (embedding) to N (after the final norm), each once.

    A negative i means (i + N + 1), as in fair-esm's scripts/extract.py.

    Raises:
        ValueError: a layer outside -(N + 1) .. N.
    """
    resolved = []
    for layer in repr_layers:
        if not -(num_layers + 1) <= layer <= num_layers:
            raise OptionError(
                f"repr_layers: {layer} is out of range for a model of {num_layers} layers "
                f"({-(num_layers + 1)} to {num_layers})"
            )
        resolved.append((layer + num_layers + 1) % (num_layers + 1))
    return list(dict.fromkeys(resolved))
