"""Compile the GPU kernels for a kind of GPU, which need not be there; print the shared memory of each as JSON.

  python tests/compile_kernels.py 89 [--gluon]

The kernels are launched as ever, with tensors on the CPU, but Triton only compiles them.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

HEADS, ROWS = 2, 300
MULTIPROCESSORS = 132


class Driver:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


def compile_only(compiled: dict[str, int]) -> None:
    """Make launches of kernels compile them, and note their shared memory, in bytes."""

    def launch(kernel: JITFunction, grid):
        def run(*args, **options):
            result = kernel.run(*args, grid=grid, warmup=True, **options)
            name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"
            compiled[name] = max(compiled.get(name, 0), result.metadata.shared)

        return run

    JITFunction.__getitem__ = launch


def launch_triton(dtype: torch.dtype, head_dim: int) -> None:
    """Launch the kernels of all GPUs since Ampere."""
    from packed_esm.kernels import triton_ops
    from packed_esm.kernels.triton_attention import query_tiles, triton_attention
    from packed_esm.kernels.triton_contacts import TritonContacts

    width = HEADS * head_dim
    cu_seqlens = torch.tensor(np.cumsum([0, 100, ROWS - 100]), dtype=torch.int32)
    rows, norm = torch.zeros(ROWS, width), torch.nn.LayerNorm(width)
    qkv = torch.zeros(ROWS, 3, HEADS, head_dim, dtype=dtype)
    triton_ops.add_norm(rows, rows.to(dtype), norm, dtype)
    triton_ops.add_norm(rows, None, norm, torch.float32)
    triton_ops.rotate(qkv, torch.zeros(ROWS, head_dim // 2, dtype=torch.complex64))
    triton_ops.norm_and_rotate(qkv, torch.zeros(ROWS, head_dim // 2, dtype=torch.complex64), torch.ones(2, width), 1e-5)
    triton_ops.swiglu(rows.to(dtype))
    triton_ops.pool(rows, cu_seqlens, 2)
    triton_ops.quantise(rows.to(dtype), torch.ones(width), None)
    triton_ops.quantise(rows.to(dtype), torch.ones(width), -0.17)
    triton_attention(*qkv.unbind(1), query_tiles(cu_seqlens))
    contacts = TritonContacts(torch.zeros(1, HEADS), torch.zeros(1), cu_seqlens)
    contacts.add(*qkv.unbind(1)[:2], 0)
    contacts.contacts()


def launch_gluon(dtype: torch.dtype, head_dim: int) -> None:
    """Launch the products of Hopper GPUs."""
    from packed_esm.kernels import gluon_ops
    from packed_esm.kernels.gluon_product import Scales, product

    torch.cuda.get_device_properties = lambda device: SimpleNamespace(multi_processor_count=MULTIPROCESSORS)
    width = 3 * HEADS * head_dim
    vector = torch.zeros(width)
    x, weight = torch.zeros(ROWS, head_dim, dtype=dtype), torch.zeros(width, head_dim, dtype=dtype)
    linear = torch.nn.Linear(head_dim, width, dtype=dtype)
    rotation = torch.zeros(ROWS, head_dim // 2, dtype=torch.complex64)
    gluon_ops.gelu_product(x, linear)
    assert [part.shape for part in gluon_ops.qkv_product(x, linear, HEADS, rotation)] == 3 * [(ROWS, HEADS, head_dim)]
    gluon_ops.qkv_product(x, linear, HEADS, None)
    assert gluon_ops.swiglu_product(x, linear).shape == (ROWS, width // 2)
    scales = Scales(torch.zeros(ROWS), vector, vector.int())
    product(x.to(torch.int8), weight.to(torch.int8), vector, "gelu", scales=scales)
    product(x.to(torch.int8), weight.to(torch.int8), vector, scales=scales)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capability", type=int, help="compute capability, such as 89 for 8.9")
    parser.add_argument("--gluon", action="store_true", help="the products of Hopper GPUs too")
    args = parser.parse_args()
    driver.set_active(Driver(args.capability))
    compiled: dict[str, int] = {}
    compile_only(compiled)
    for head_dim in (64, 128):
        for dtype in (torch.float16, torch.bfloat16):
            launch_triton(dtype, head_dim)
            if args.gluon:
                launch_gluon(dtype, head_dim)
    print(json.dumps(compiled))


if __name__ == "__main__":
    main()
