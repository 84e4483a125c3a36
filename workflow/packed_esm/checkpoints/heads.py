"""The heads of a model: those that a checkpoint came without, and what needs which."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ..errors import OptionError
from ..outputs.table import LM_HEAD, included
from .registry import contact_head_path


def absent_heads(model: nn.Module) -> frozenset[str]:
    """Return which of lm_head and contact_head a loaded model came without."""
    return getattr(model, "absent_heads", frozenset())


def require_heads(model: nn.Module, include: Iterable[str], path: Path) -> None:
    """Raise OptionError where `include` needs a head that the checkpoint at `path` has not; embeddings need none."""
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
