"""Contacts between residues by fair-esm's contact head, from the attention maps of packed sequences.

Rao et al. 2021: a logistic regression over the maps of all heads of all layers, each made symmetric and corrected for
the average product of its rows and columns (esm/modules.py, `ContactPredictionHead`). The regression is a sum over
heads, so each map is added to the sum and then discarded.
"""

from typing import Protocol

import torch
from torch import nn

from .attention import Attend

MAPS_BYTES = 256 * 2**20  # fp32 maps of one sequence, for as many heads as fit


class ContactSums(Protocol):
    """The sums of the regression for each sequence of a pack."""

    def add(self, q: torch.Tensor, k: torch.Tensor, layer: int) -> None:
        """Add the maps of a layer, counted from 0; q, k: [total, H, D]."""

    def contacts(self) -> list[torch.Tensor]:
        """Return the probability of a contact for each pair of residues, fp32 [L, L] for each sequence."""


def contact_sums(regression: nn.Linear, num_layers: int, cu_seqlens: torch.Tensor, kernels: bool) -> ContactSums:
    """Return the sums of a pack, to which no map was added.

    Args:
        regression: layer of the contact head, with one weight for each layer and head of the model.
        num_layers: of the model.
        cu_seqlens: int32 [n + 1] on the host, cls and eos included.
        kernels: use the Triton kernels; q and k are in half precision.
    """
    weights = regression.weight.view(num_layers, -1)
    if not kernels:
        return TorchContacts(weights, regression.bias, cu_seqlens)
    from ..kernels.triton_contacts import TritonContacts

    return TritonContacts(weights, regression.bias, cu_seqlens)


def observed(attend: Attend, sums: ContactSums, layer: int) -> Attend:
    """Return a function that does `attend` and adds the maps of layer `layer`, counted from 0, to the sums."""

    def attend_and_add(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        sums.add(q, k, layer)
        return attend(q, k, v)

    return attend_and_add


class TorchContacts:
    """The sums of the regression by torch. At most MAPS_BYTES of maps, but at least one map, are in memory."""

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, cu_seqlens: torch.Tensor) -> None:
        self._weights, self._bias = weights, bias
        bounds = cu_seqlens.tolist()
        self._places = [slice(start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        self._sums: list[torch.Tensor | int] = [0] * len(self._places)

    def add(self, q: torch.Tensor, k: torch.Tensor, layer: int) -> None:
        """See `ContactSums`."""
        for index, place in enumerate(self._places):
            self._sums[index] = self._sums[index] + _layer_sum(q[place], k[place], self._weights[layer])

    def contacts(self) -> list[torch.Tensor]:
        """See `ContactSums`."""
        return [torch.sigmoid(total + self._bias) for total in self._sums]


def _layer_sum(q: torch.Tensor, k: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum over the heads of one layer for one sequence, fp32 [L, L].

    Args:
        q, k: [L + 2, H, D].
        weights: of the heads, fp32 [H].
    """
    tokens, heads, head_dim = q.shape
    if tokens < 3:  # filler without a residue
        return q.new_zeros(0, 0, dtype=torch.float32)
    q, k = (x.transpose(0, 1).float() for x in (q, k))
    total = torch.zeros(tokens - 2, tokens - 2, device=q.device)
    at_once = max(1, MAPS_BYTES // (4 * tokens**2))
    for some in torch.arange(heads).split(at_once):
        part = slice(int(some[0]), int(some[-1]) + 1)
        maps = torch.softmax(q[part] @ k[part].mT * head_dim**-0.5, -1)[:, 1:-1, 1:-1]  # without cls and eos
        maps = maps + maps.mT
        rows, weight = maps.sum(-1), weights[part]  # the maps are symmetric: the sums of columns are equal
        total += torch.tensordot(weight, maps, 1) - (rows * (weight / rows.sum(-1))[:, None]).mT @ rows
    return total
