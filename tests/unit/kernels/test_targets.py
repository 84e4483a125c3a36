"""The kernels compile for GPUs that are not here, and fit into their shared memory."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

# Triton is not imported: where it is, kernels no longer run in its interpreter.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux)")

KB = 1024
# Shared memory of a block at most, by compute capability (CUDA C++ Programming Guide, technical specifications).
SHARED = {80: 163 * KB, 86: 99 * KB, 89: 99 * KB, 90: 227 * KB}


@pytest.mark.parametrize("capability", SHARED)
def test_kernels_compile_and_fit(capability):
    """A100; A10 and RTX 3090; L4, L40S and RTX 4090; H100 and H200, with the products in Gluon."""
    command = [sys.executable, ROOT / "tests" / "compile_kernels.py", str(capability)]
    gluon = ["--gluon"] if capability == 90 else []
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([*command, *gluon], capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    compiled = json.loads(run.stdout)
    assert len(compiled) == 12 + len(gluon)
    assert {name: size for name, size in compiled.items() if size > SHARED[capability]} == {}
