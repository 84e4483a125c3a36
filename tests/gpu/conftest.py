"""Which kernels a test on a GPU runs."""

import pytest
import torch
from packed_esm.kernels import dispatch


@pytest.fixture(params=["triton", "gluon"])
def kernels(request, monkeypatch):
    """The kernels of models of every width in half precision, not only of those that gain by them."""
    if request.param == "gluon" and (reason := dispatch.why_no_gluon(torch.device("cuda"))):
        pytest.skip(reason)
    monkeypatch.setattr(dispatch, "GLUON_WIDTHS", range(64, 10**4) if request.param == "gluon" else range(0))
    return request.param
