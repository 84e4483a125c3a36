"""Steps that are the same for the tensors of all kinds of checkpoints, before a model is built."""

import logging
from collections.abc import Iterable, Sequence

import torch
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError
from .folders import TOKENS
from .names import SHARED_FREQUENCIES
from .shape import layers_of

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]
_OF_TOKENS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")


def checked_tensors(where: object, tensors: object) -> State:
    """Return `tensors` if it is a dictionary of names and tensors.

    Raises:
        CheckpointError: it is not, or a value is not a tensor of numbers; the message has its name.
    """
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{where}: not a dictionary of tensors, so not a model")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{where}: {str(name)[:80]} is a {type(tensor).__name__}, not a tensor; save the tensors alone"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(f"{where}: {name} is a sparse, quantised or complex tensor; save it as plain numbers")
    return dict(tensors)


def named_once(where: object, named: Iterable[tuple[str, torch.Tensor]]) -> State:
    """Return {name: tensor}.

    Raises:
        CheckpointError: two tensors have one name, of which nobody knows the right one.
    """
    state: State = {}
    for name, tensor in named:
        if name in state:
            raise CheckpointError(f"{where}: two of its tensors are {name}; save it with one of them")
        state[name] = tensor
    return state


def log_unused(where: object, names: Sequence[str]) -> None:
    """Log that tensors of other heads are not used."""
    if names:
        log.info("%s: %d tensors of another head (%s ...) are not used", where, len(names), names[0])


def select_rows(where: object, state: State, token_rows: Sequence[int] | None) -> None:
    """Put the rows of the embedding and the LM head into the order of tokens of fair-esm, and leave out added tokens.

    Args:
        where: for messages.
        state: changed in place.
        token_rows: the row of each token of fair-esm; None: they are in the order of fair-esm.

    Raises:
        CheckpointError: fewer rows than tokens.
    """
    rows = list(range(len(TOKENS)) if token_rows is None else token_rows)
    present = [name for name in _OF_TOKENS if name in state]
    for name in present:
        if not state[name].ndim or len(state[name]) <= max(rows):
            raise CheckpointError(
                f"{where}: {name} is of shape {list(state[name].shape)}, but the vocabulary needs {max(rows) + 1} rows"
            )
    added = len(state[present[0]]) - len(TOKENS) if present else 0
    if added:
        log.info("%s: %d rows of the embedding belong to added tokens and are not used", where, added)
    if rows != list(range(len(TOKENS))) or added:
        state |= {name: state[name][rows] for name in present}


def copy_shared_frequencies(state: State) -> None:
    """Copy shared rotary frequencies, if there are any, to each layer; `state` is changed."""
    shared = state.pop(SHARED_FREQUENCIES, None)
    if shared is not None:
        for name in frequency_names(state):
            state.setdefault(name, shared)


def frequency_names(state: State) -> list[str]:
    """Return the name of the rotary frequencies of each layer in `state`."""
    return [f"layers.{index}.self_attn.rot_emb.inv_freq" for index in layers_of(state)]


def check_tensors(where: object, what: str, state: State, expected: State) -> None:
    """Raise CheckpointError if `state` has not the names and shapes of `expected`, or a tensor is no floating-point.

    Args:
        where, what: the checkpoint and its kind of model, for messages.
    """
    missing = expected.keys() - state.keys()
    misshapen = {name for name in state.keys() & expected.keys() if state[name].shape != expected[name].shape}
    for problem, names in (("missing", missing), ("misshapen", misshapen)):
        if names:
            raise CheckpointError(
                f"{where}: {len(names)} {problem} tensors for {what}, "
                f"{_shortened(names)}; the file is damaged or belongs to another model: fetch it again"
            )
    for name in sorted(state.keys() & expected.keys()):
        if not state[name].is_floating_point():
            raise CheckpointError(
                f"{where}: {name} is of {state[name].dtype}, not floating-point; save the model before quantisation"
            )
    if extra := state.keys() - expected.keys():
        raise CheckpointError(
            f"{where}: {len(extra)} extra tensors for {what}, {_shortened(extra)}; "
            "it is another model, or the file contains more than a model: save it without them"
        )


def _shortened(names: Iterable[str], at_most: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:at_most]) + (" ..." if len(names) > at_most else "")


class SkipRandomInit(TorchFunctionMode):
    """Skip the random initial weights, which are replaced at once.

    The meta device would skip them too, but it imports torch's compiler, which takes two seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        kwargs = kwargs or {}
        if getattr(function, "__name__", "").endswith(("normal_", "uniform_")):  # also kaiming_uniform_ and similar
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
