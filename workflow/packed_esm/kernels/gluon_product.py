"""Matrix products with the operation that follows them, for Hopper GPUs, in Gluon (Triton's language for warps).

out = f(x W^T + b), rounded to the dtype of x before f, as it is where f is an operation of its own. One program runs on
each multiprocessor. It computes tiles of ROWS x COLUMNS, one after the other: two warpgroups multiply, and a third one
applies f to the last tile and writes it while they multiply the next one. So f costs no pass over memory, and little
time. The order of a sum depends only on its length, so a row has the same bits wherever it is.
"""

from typing import NamedTuple

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

ROWS, COLUMNS = 128, 256  # of a tile
DEPTH = 128  # bytes of a row of x and of W that are multiplied at once
STAGES = gl.constexpr(3)  # of memory for these columns: one is multiplied, two arrive
PART_ROWS, PART_COLUMNS = gl.constexpr(32), gl.constexpr(64)  # of a part of a tile, on its way through f
WARPS, LAUNCH_REGISTERS = 8, 168  # a thread: 12 warps with so many registers are all that there are
FINISHING_WARPS, FINISHING_REGISTERS = gl.constexpr(4), gl.constexpr(104)
DTYPES = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16, torch.int8: gl.int8}

_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name before Triton 3.8


class Scales(NamedTuple):
    """How the sums of products in int8 become numbers: row * column * (first + sum) + bias.

    Attributes:
        row: fp32 [rows].
        column: fp32 [out].
        first: int32 [out], with which the sums begin.
    """

    row: torch.Tensor
    column: torch.Tensor
    first: torch.Tensor


def product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    after: str = "nothing",
    angles: torch.Tensor | None = None,
    scales: Scales | None = None,
) -> torch.Tensor:
    """Return f(x W^T + b); rows of x and of the result are multiples of 16 bytes.

    Args:
        x: fp16, bf16 or int8 [rows, in], contiguous.
        weight: [out, in], of the dtype of x.
        bias: [out]; None with `swiglu`.
        after: what f is: `gelu` (exact, not its approximation by tanh), `swiglu`, `rotate`, or `nothing`.
        angles: with `rotate`, complex64 [rows, D / 2]; the first two thirds of the outputs are turned as
            `torch_ops.rotate` does.
        scales: of int8.

    Returns:
        [rows, out] of the dtype of x, or bf16 for int8; [rows, out / 2] with `swiglu`.
    """
    rows, (width, depth) = len(x), weight.shape
    dtype = x.dtype if scales is None else torch.bfloat16
    # A tile of SwiGLU has gates and as many ups, which are far apart in W.
    halves = 2 if after == "swiglu" else 1
    width //= halves
    out = torch.empty(rows, width, device=x.device, dtype=dtype)
    bias = out if bias is None else bias
    turns = bias if angles is None else torch.view_as_real(angles).flatten(1)
    columns = triton.cdiv(width, COLUMNS // halves)
    tiles = triton.cdiv(rows, ROWS) * columns
    programs = torch.cuda.get_device_properties(x.device).multi_processor_count
    _product[(min(programs, tiles),)](
        _descriptor(x, ROWS),
        _descriptor(weight, COLUMNS // halves),
        out,
        bias,
        turns,
        *(scales or (bias, bias, bias)),
        rows,
        width,
        tiles,
        columns,
        triton.cdiv(depth * x.itemsize, DEPTH),
        DTYPES[dtype],
        after,
        0 if angles is None else turns.shape[1],
        2 * width // 3,
        num_warps=WARPS,
        maxnreg=LAUNCH_REGISTERS,
    )
    return out


def _descriptor(matrix: torch.Tensor, rows: int) -> TensorDescriptor:
    block = [rows, DEPTH // matrix.itemsize]
    layout = gl.NVMMASharedLayout.get_default_for(block, DTYPES[matrix.dtype])
    return TensorDescriptor.from_tensor(matrix.detach(), block, layout)


@gluon.jit(do_not_specialize=["rows", "tiles"])
def _product(
    x_desc,
    w_desc,
    out_ptr,
    bias_ptr,
    turns_ptr,
    row_scale_ptr,
    column_scale_ptr,
    first_ptr,
    rows,
    width,
    tiles,
    columns,
    steps,
    DTYPE: gl.constexpr,
    AFTER: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    ROTATED: gl.constexpr,
    num_warps: gl.constexpr,
):
    M: gl.constexpr = x_desc.block_type.shape[0]
    N: gl.constexpr = w_desc.block_type.shape[0] * (2 if AFTER == "swiglu" else 1)
    K: gl.constexpr = w_desc.block_type.shape[1]
    x_stages = gl.allocate_shared_memory(x_desc.dtype, [STAGES] + x_desc.block_type.shape, x_desc.layout)
    w_stages = gl.allocate_shared_memory(w_desc.dtype, [STAGES, N, K], w_desc.layout)
    finished = gl.allocate_shared_memory(DTYPE, [M, N], gl.NVMMASharedLayout(128, 16, rank=2))
    arrived = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(arrived.index(stage), count=1)
    mbarrier.init(full, count=1)
    mbarrier.init(free, count=1)
    shape = (rows, width, tiles, columns)
    handed = (finished, full, free)
    columns_of = (bias_ptr, column_scale_ptr, first_ptr)
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    x_desc,
                    w_desc,
                    x_stages,
                    w_stages,
                    arrived,
                    handed,
                    columns_of,
                    row_scale_ptr,
                    shape,
                    steps,
                    AFTER,
                    num_warps,
                ),
            ),
            (_finish, (handed, out_ptr, turns_ptr, shape, AFTER, HEAD_DIM, ROTATED)),
        ],
        [FINISHING_WARPS],
        [FINISHING_REGISTERS],
    )


@gluon.jit
def _multiply(
    x_desc,
    w_desc,
    x_stages,
    w_stages,
    arrived,
    handed,
    columns_of,
    row_scale_ptr,
    shape,
    steps,
    AFTER: gl.constexpr,
    WARPS: gl.constexpr,
):
    """Multiply each tile of this program, and hand it over in shared memory."""
    M: gl.constexpr = x_stages.shape[1]
    N: gl.constexpr = w_stages.shape[1]
    INT8: gl.constexpr = x_desc.dtype == gl.int8
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, 128 if INT8 else N, 32 if INT8 else 16])
    finished, full, free = handed
    bias_ptr, column_scale_ptr, first_ptr = columns_of
    rows, width, tiles, columns = shape
    next_tile, next_step = gl.program_id(0), 0  # of the next load, STAGES - 1 steps ahead
    for ahead in gl.static_range(STAGES - 1):
        _start_load(x_desc, w_desc, x_stages, w_stages, arrived, ahead, next_tile, next_step, shape)
        next_tile, next_step = _after(next_tile, next_step, steps)
    stage, phase, turn = 0, 0, 1
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        column = tile % columns * N + gl.arange(0, N, gl.SliceLayout(0, layout))
        if AFTER == "swiglu":
            bias = gl.zeros([N], gl.float32, gl.SliceLayout(0, layout))
            sums = gl.zeros([M, N], gl.float32, layout)
        elif INT8:
            first = gl.load(first_ptr + column, mask=column < width, other=0)
            sums = gl.zeros([M, N], gl.int32, layout) + first[None, :]
        else:
            bias = gl.load(bias_ptr + column, mask=column < width, other=0.0).to(gl.float32)
            sums = gl.zeros([M, N], gl.float32, layout)
        for step in range(steps):
            mbarrier.wait(arrived.index(stage), phase)
            w = w_stages.index(stage).permute((1, 0))
            sums = warpgroup_mma(x_stages.index(stage), w, sums, use_acc=INT8 or step > 0, is_async=True)
            sums = warpgroup_mma_wait(1, deps=(sums,))
            free_stage = gl.where(stage == 0, STAGES - 1, stage - 1)  # of the product before this one
            _start_load(x_desc, w_desc, x_stages, w_stages, arrived, free_stage, next_tile, next_step, shape)
            next_tile, next_step = _after(next_tile, next_step, steps)
            phase = gl.where(stage == STAGES - 1, phase ^ 1, phase)
            stage = gl.where(stage == STAGES - 1, 0, stage + 1)
        sums = warpgroup_mma_wait(0, deps=(sums,))
        mbarrier.wait(free, turn)
        if INT8:
            row = tile // columns * M + gl.arange(0, M, gl.SliceLayout(1, layout))
            row_scale = gl.load(row_scale_ptr + row, mask=row < rows, other=0.0)
            halves = sums.reshape([M, 2, N // 2]).permute([0, 2, 1]).split()
            for half in gl.static_range(2):  # all at once would need more registers than there are
                part = halves[half].to(gl.float32)
                place = tile % columns * N + half * (N // 2) + gl.arange(0, N // 2, gl.SliceLayout(0, part.type.layout))
                scale = gl.load(column_scale_ptr + place, mask=place < width, other=0.0)
                part = (
                    part * gl.convert_layout(row_scale, gl.SliceLayout(1, part.type.layout))[:, None] * scale[None, :]
                )
                bias = gl.load(bias_ptr + place, mask=place < width, other=0.0).to(gl.float32)
                finished.slice(half * (N // 2), N // 2, dim=1).store((part + bias[None, :]).to(finished.dtype))
        else:
            finished.store((sums + bias[None, :]).to(finished.dtype))
        mbarrier.arrive(full, count=1)
        turn ^= 1


@gluon.jit
def _start_load(x_desc, w_desc, x_stages, w_stages, arrived, stage, tile, step, shape):
    """Begin to copy the columns of a step of a tile, if there is such a tile."""
    M: gl.constexpr = x_desc.block_type.shape[0]
    N: gl.constexpr = w_desc.block_type.shape[0]
    K: gl.constexpr = x_desc.block_type.shape[1]
    PARTS: gl.constexpr = w_stages.shape[1] // N
    rows, width, tiles, columns = shape
    there = tile < tiles
    mbarrier.expect(arrived.index(stage), x_desc.block_type.nbytes + PARTS * w_desc.block_type.nbytes, pred=there)
    row, column = tile // columns * M, tile % columns * N
    _load(x_desc, [row, step * K], arrived.index(stage), x_stages.index(stage), pred=there)
    for part in gl.static_range(PARTS):  # gates, and ups `width` rows below
        memory = w_stages.index(stage).slice(part * N, N, dim=0)
        _load(w_desc, [column + part * width, step * K], arrived.index(stage), memory, pred=there)


@gluon.jit
def _after(tile, step, steps):
    """Return the step after a step of a tile: of the same tile, or of the next one of this program."""
    last = step == steps - 1
    return gl.where(last, tile + gl.num_programs(0), tile), gl.where(last, 0, step + 1)


@gluon.jit
def _finish(handed, out_ptr, turns_ptr, shape, AFTER: gl.constexpr, HEAD_DIM: gl.constexpr, ROTATED: gl.constexpr):
    """Apply f to each tile of this program, a part at a time, and write it."""
    finished, full, free = handed
    rows, width, tiles, columns = shape
    M: gl.constexpr = finished.shape[0]
    ALL_PARTS: gl.constexpr = M * finished.shape[1] // (PART_ROWS * PART_COLUMNS)
    HALVES: gl.constexpr = 2 if AFTER == "swiglu" else 1
    N: gl.constexpr = finished.shape[1] // HALVES
    PARTS: gl.constexpr = ALL_PARTS // HALVES
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [FINISHING_WARPS, 1], [1, 0])
    memory: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    parts = finished._reinterpret(finished.dtype, [ALL_PARTS, PART_ROWS, PART_COLUMNS], memory)
    turn = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = tile // columns * M, tile % columns * N
        ahead = _turns(turns_ptr, row, column, rows, layout, AFTER, HEAD_DIM, ROTATED)
        mbarrier.wait(full, turn)
        for part in range(PARTS):
            part_row, part_column = _place(row, column, part, M)
            turns, after = ahead, part + 1
            next_row, next_column = _place(row, column, after, M)
            next_column = gl.where(after < PARTS, next_column, width)
            ahead = _turns(turns_ptr, next_row, next_column, rows, layout, AFTER, HEAD_DIM, ROTATED)
            value = parts.index(part).load(layout)
            if AFTER == "gelu":
                value = _gelu(value.to(gl.float32)).to(value.dtype)
            elif AFTER == "swiglu":
                up = parts.index(part + PARTS).load(layout)
                value = _swiglu(value.to(gl.float32), up.to(gl.float32)).to(value.dtype)
            elif AFTER == "rotate":
                value = _rotate(value, turns, layout) if part_column < ROTATED else value
            place = _rows(part_row, layout) * width + _columns(part_column, layout)
            gl.store(
                out_ptr + place, value, mask=(_rows(part_row, layout) < rows) & (_columns(part_column, layout) < width)
            )
        mbarrier.arrive(free, count=1)
        turn ^= 1


@gluon.jit
def _place(row, column, part, M: gl.constexpr):
    """Return the first row and column of a part of a tile: the parts of its first columns are the first ones."""
    DOWN: gl.constexpr = M // PART_ROWS
    return row + part % DOWN * PART_ROWS, column + part // DOWN * PART_COLUMNS


@gluon.jit
def _rows(row, layout: gl.constexpr):
    return (row + gl.arange(0, PART_ROWS, gl.SliceLayout(1, layout))).to(gl.int64)[:, None]


@gluon.jit
def _columns(column, layout: gl.constexpr):
    return (column + gl.arange(0, PART_COLUMNS, gl.SliceLayout(0, layout)))[None, :]


@gluon.jit
def _turns(
    ptr, row, column, rows, layout: gl.constexpr, AFTER: gl.constexpr, HEAD_DIM: gl.constexpr, ROTATED: gl.constexpr
):
    """Load cos and sin, in turns, of a part that is rotated."""
    if AFTER == "rotate":
        mask = (_rows(row, layout) < rows) & (column < ROTATED)
        place = _rows(row, layout) * HEAD_DIM + _columns(column, layout) % HEAD_DIM
        return gl.load(ptr + place, mask=mask, other=0.0)
    else:  # noqa: RET505
        return 0


@gluon.jit
def _rotate(value, angles, layout: gl.constexpr):
    """Turn each pair of neighbours by its angle; angles: cos and sin in turns."""
    PAIRS: gl.constexpr = [PART_ROWS, PART_COLUMNS // 2, 2]
    first, second = value.to(gl.float32).reshape(PAIRS).split()
    cos, sin = angles.reshape(PAIRS).split()
    rotated = gl.join(first * cos - second * sin, second * cos + first * sin).reshape(value.shape)
    return gl.convert_layout(rotated.to(value.dtype), layout)


@gluon.jit
def _gelu(x):
    """Return x times the normal distribution function of x.

    erf is Abramowitz and Stegun's 7.1.26, whose error is below 1.5e-7; the error of the product is below 3e-7.
    """
    size = gl.abs(x)
    t = _approximately("rcp", 0.23164189 * size + 1.0)  # 0.3275911 / sqrt(2)
    tail = 0.5307027145 * t - 0.7265760135
    tail = tail * t + 0.7107068705
    tail = tail * t - 0.142248368
    tail = (tail * t + 0.127414796) * t
    tail *= _approximately("ex2", -0.72134752 * size * size)  # exp(-x^2 / 2)
    return gl.maximum(x, 0.0) - size * tail


@gluon.jit
def _swiglu(gate, up):
    """Return gate * up / (1 + exp(-gate))."""
    return gate * up * _approximately("rcp", 1.0 + _approximately("ex2", -1.44269504 * gate))


@gluon.jit
def _approximately(what: gl.constexpr, x):
    """Return 1 / x or 2^x by the instruction of that name, whose relative error is below 2^-22."""
    ASSEMBLY: gl.constexpr = what + ".approx.ftz.f32 $0, $1;"
    return gl.inline_asm_elementwise(ASSEMBLY, "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)
