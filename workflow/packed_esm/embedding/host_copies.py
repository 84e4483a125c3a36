"""Copies on the host of what the device computes for a pack, and the outputs for each residue as they are written."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from ..outputs.forms import Form
from ..outputs.table import RESIDUES

# Bytes of a page-locked copy whose size varies: torch keeps such memory for each size that there was, in powers of two.
MOST_PINNED = 4 * 2**20
Forms = Mapping[str, Form]  # {output: how its values are stored}, by names of RESIDUES


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

    def copy(self, tensors: Sequence[torch.Tensor], dtype: torch.dtype, most_pinned: int | None = None) -> torch.Tensor:
        """Return copies of n tensors of one shape, [n, ...]; on a GPU they are complete when `event` is.

        Args:
            tensors: on the device.
            dtype: of the copies.
            most_pinned: of more bytes, the memory is not page-locked; such copies are waited for. None: no limit.
        """
        shape = (len(tensors), *tensors[0].shape)
        small = most_pinned is None or math.prod(shape) * dtype.itemsize <= most_pinned
        copies = torch.empty(shape, dtype=dtype, pin_memory=self._stream is not None and small)
        for copy, tensor in zip(copies, tensors, strict=True):
            if self._stream is not None:
                tensor.record_stream(self._stream)  # its memory must not be used again before
            copy.copy_(tensor.to(dtype), non_blocking=True)
        return copies

    def residues(self, outputs: dict, forms: Forms) -> dict:
        """Return copies of the outputs of a pack that `forms` names, for `StartedPack.of_sequence`."""
        copies = {}
        for name, form in forms.items():
            layout = RESIDUES[name].layout
            most_pinned = None if layout.has_one_size else MOST_PINNED
            copy = partial(self.copy, dtype=getattr(torch, form.computed), most_pinned=most_pinned)
            copies[name] = layout.on_host(outputs[name], copy)
        return copies

    def event(self) -> torch.cuda.Event | None:
        """Return an event that follows the copies so far; None if they are complete."""
        return None if self._stream is None else self._stream.record_event()


def stored_arrays(out: dict, forms: Forms) -> dict[str, np.ndarray]:
    """Return the outputs of one sequence that `forms` names, as `store.residues` takes them.

    Args:
        out: outputs of `forward_packed` for the sequence, on any device.
        forms: {feature: how it is stored}.
    """
    with np.errstate(over="ignore"):
        return {
            name: RESIDUES[name].layout.stored(out[name]).astype(form.computed, copy=False)
            for name, form in forms.items()
        }
