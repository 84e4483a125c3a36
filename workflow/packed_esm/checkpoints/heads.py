"""The heads of a model: which a checkpoint does not have, and which output needs which head."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ..errors import OptionError
from ..outputs.table import LM_HEAD, included
from .registry import contact_head_path


def absent_heads(model: nn.Module) -> frozenset[str]:
    """Return which of lm_head and contact_head the checkpoint of a loaded model did not have."""
    return getattr(model, "absent_heads", frozenset())


def require_heads(model: nn.Module, include: Iterable[str], path: Path) -> None:
    """Raise OptionError if `include` needs a head that the checkpoint at `path` does not have; embeddings need none."""
    for name in include:
        if included(name).head in absent_heads(model):
            raise OptionError(f"include: {name} needs {_remedy(included(name).head, path)}")


def _remedy(head: str, path: Path) -> str:
    if head == LM_HEAD:
        return (
            f"a language-model head (lm_head), and {path} has none; leave it out, or use a checkpoint that has one "
            "(of EsmForMaskedLM, or fair-esm's own)"
        )
    where = (
        "use a checkpoint that has one"
        if path.is_dir()
        else f"put the published {contact_head_path(path).name} beside it"
    )
    return f"a contact head, and {path} has none; {where}"
