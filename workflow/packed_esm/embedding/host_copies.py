"""Copies of a pack's outputs on the host."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from ..outputs.table import RESIDUES

HostDtypes = Mapping[str, str]  # {output: dtype on the host}, by names of RESIDUES, torch and NumPy


class HostCopies:
    """Copy tensors to the host; on a GPU on a stream of its own, into page-locked memory, while the GPU computes on.

    Args:
        device: of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        # Other devices have no event that tells when a copy is complete, so there the copies are waited for.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def after_queued_work(self) -> Iterator[None]:
        """Let the copies in the block begin when the work that is queued now is done."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the copy of a tensor; on a GPU it is complete when `event` is."""
        if self._stream is None:
            return tensor.to("cpu")
        tensor.record_stream(self._stream)  # its memory must not be used again before
        return tensor.to("cpu", non_blocking=True)

    def copy_outputs(self, outputs: dict) -> dict:
        """Return the copies of outputs of a pack, {name: its values}."""
        return {name: RESIDUES[name].layout.converted(x, self.copy) for name, x in outputs.items()}

    def event(self) -> torch.cuda.Event | None:
        """Return an event that follows the copies so far; None if they are complete."""
        return None if self._stream is None else self._stream.record_event()


def in_dtypes(outputs: dict, dtypes: HostDtypes) -> dict:
    """Return the outputs of a pack that `dtypes` names, in these dtypes."""
    return {
        name: RESIDUES[name].layout.converted(outputs[name], partial(torch.Tensor.to, dtype=getattr(torch, dtype)))
        for name, dtype in dtypes.items()
    }
