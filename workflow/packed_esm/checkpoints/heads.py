"""The heads of a model: the heads that a checkpoint lacks, and the outputs that need a head."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ..errors import OptionError
from ..families import CONTACT_HEAD, LM_HEAD
from ..outputs.table import included
from .headers import family_at
from .registry import contact_head_path


def absent_heads(model: nn.Module) -> frozenset[str]:
    """Return the heads (lm_head, contact_head) that the checkpoint of a loaded model does not have."""
    return getattr(model, "absent_heads", frozenset())


def require_heads(model: nn.Module, include: Iterable[str], path: Path) -> None:
    """Raise OptionError if `include` needs a head that the checkpoint at `path` does not have; embeddings need none."""
    for name in include:
        if included(name).head in absent_heads(model):
            raise OptionError(f"include: {name} needs {_remedy(included(name).head, path)}")


def _remedy(head: str, path: Path) -> str:
    if head == LM_HEAD:
        return (
            f"a language-model head (lm_head), and {path} has none; remove it from include, or use a checkpoint "
            "that has one (of EsmForMaskedLM, or fair-esm's own)"
        )
    if CONTACT_HEAD not in family_at(path).heads:
        return f"a contact head, and {path} has none, as no {family_at(path).name} has; remove it from include"
    where = (
        "use a checkpoint that has one"
        if path.is_dir()
        else f"put the published {contact_head_path(path).name} beside it"
    )
    return f"a contact head, and {path} has none; {where}"
