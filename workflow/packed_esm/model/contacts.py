"""Contacts between residues by fair-esm's contact head, from the attention maps of packed sequences.

Rao et al. 2021: a logistic regression over the maps of all heads of all layers, each made symmetric and corrected for
the average product of its rows and columns (esm/modules.py, `ContactPredictionHead`). The regression is a sum over
heads, so each map is added to the sum and then discarded. At most MAPS_BYTES of maps, but at least one map, are in
memory at the same time.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .attention import Attend

MAPS_BYTES = 256 * 2**20  # fp32 maps of one sequence, for as many heads as fit


class ContactMaps:
    """The sums of the regression for each sequence of a pack.

    Args:
        regression: layer of the contact head, with one weight for each layer and head of the model.
        num_layers: of the model.
        bounds: `cu_seqlens` of the pack, [n + 1], cls and eos included.
    """

    def __init__(self, regression: nn.Linear, num_layers: int, bounds: Sequence[int]) -> None:
        self._weights = regression.weight.view(num_layers, -1)
        self._bias = regression.bias
        self._places = [slice(start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        self._sums: list[torch.Tensor | int] = [0] * len(self._places)

    def observe(self, attend: Attend, layer: int) -> Attend:
        """Return a function that does `attend` and adds the maps of layer `layer`, counted from 0, to the sums."""

        def observed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            for index, place in enumerate(self._places):
                self._sums[index] = self._sums[index] + _layer_sum(q[place], k[place], self._weights[layer])
            return attend(q, k, v)

        return observed

    def contacts(self) -> list[torch.Tensor]:
        """Return the probability of a contact for each pair of residues, fp32 [L, L] for each sequence."""
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
