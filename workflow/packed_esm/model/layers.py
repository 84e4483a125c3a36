"""Where the blocks of a model are: all on the device, or two of them, while the others wait on the host.

Each class has `first`, which yields the first blocks one after the other. A block on its way is copied while the device
computes: a layer of a large model takes longer to compute, for some packs, than to copy. One function makes the blocks
for all classes, on the device, so their bits are the same.
"""

import contextlib
import itertools
import math
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

SLOTS = 2  # layers on the device: one runs, the next one arrives
ALIGNMENT = 512  # bytes, of all that torch allocates on a GPU; products choose their kernels by it
MakeBlock = Callable[[int], nn.Module]  # of the number of a layer, from 0
Ready = Callable[[], torch.cuda.Event | None]  # waits until a copy is queued, and returns the event after it


class ResidentLayers(nn.ModuleList):
    """All blocks on the device."""

    def __init__(self, make: MakeBlock, count: int, device: torch.device) -> None:  # noqa: ARG002
        super().__init__(make(layer) for layer in range(count))

    def first(self, count: int) -> Iterator[nn.Module]:
        """Yield the first `count` blocks in order."""
        return itertools.islice(iter(self), count)


class _Slot:
    """Memory on the device for one layer, and a block whose tensors are parts of it.

    Attributes:
        block: of which layer, changes with the content.
        memory: uint8 [size].
        layer: whose weights are there, or on their way; None: of none.
        ready: of this copy.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.memory = torch.empty(_size(block), dtype=torch.uint8, device=next(_tensors(block)).device)
        for tensor, part in zip(_tensors(block), _parts(block, self.memory), strict=True):
            tensor.data = part
        self.layer: int | None = None
        self.ready: Ready = lambda: None


class _StreamedLayers(ABC):
    """Two slots on the device, which the layers pass through; on a GPU they are copied on a stream of its own.

    For one thread, and for one stream of a GPU, or several that wait for each other: a slot is filled after the work
    that is queued on the current stream then.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._slots: deque[_Slot] = deque()

    def first(self, count: int) -> Iterator[nn.Module]:
        """Yield the first `count` blocks in order; each is valid until the next one is asked for.

        With the last block the copy of the first one begins, for the next call.
        """
        for layer in range(count):
            for slot, wanted in zip(self._slots, (layer, (layer + 1) % count), strict=False):
                if slot.layer != wanted:
                    self._fill(slot, wanted)
            yield self._ready_block(self._slots[0])
            self._slots.rotate(-1)

    def _add_slot(self, block: nn.Module) -> None:
        slot = _Slot(block)
        if self._stream:  # a copy may be on its way there when this object is dropped
            slot.memory.record_stream(self._stream)
        self._slots.append(slot)

    def _fill(self, slot: _Slot, layer: int) -> None:
        if self._stream:  # after the work that is queued now, which may use the slot
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        slot.layer, slot.ready = layer, self._start_copy(slot, layer)

    def _ready_block(self, slot: _Slot) -> nn.Module:
        try:
            event = slot.ready()
        except BaseException:
            slot.layer, slot.ready = None, lambda: None  # the error would keep what there is of the layer
            raise
        if event:
            torch.cuda.current_stream(self._device).wait_event(event)
        return slot.block

    @abstractmethod
    def _start_copy(self, slot: _Slot, layer: int) -> Ready:
        """Begin to copy a layer into a slot."""

    def _copying(self) -> contextlib.AbstractContextManager:
        return torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()

    def _event(self) -> torch.cuda.Event | None:
        return self._stream.record_event() if self._stream else None


class HostLayers(_StreamedLayers):
    """All blocks in the memory of the host, page-locked for a GPU. Each is one copy, and is made once.

    Raises:
        MemoryError: the system cannot lock so much memory.
    """

    def __init__(self, make: MakeBlock, count: int, device: torch.device) -> None:
        super().__init__(device)
        self._host: list[torch.Tensor] = []
        for layer in range(count):
            block = make(layer)
            self._host.append(_host_memory(_size(block), device))
            _copy(block, self._host[-1])
            if layer < SLOTS:
                self._add_slot(block)

    def _start_copy(self, slot: _Slot, layer: int) -> Ready:
        with self._copying():
            slot.memory.copy_(self._host[layer], non_blocking=True)
        event = self._event()
        return lambda: event


class FileLayers(_StreamedLayers):
    """No block on the host: a thread makes each one whenever it is needed, from weights that are mapped from a file."""

    def __init__(self, make: MakeBlock, count: int, device: torch.device) -> None:
        super().__init__(device)
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._copied: torch.cuda.Event | None = None
        for layer in range(min(SLOTS, count)):
            self._add_slot(make(layer))

    def _start_copy(self, slot: _Slot, layer: int) -> Ready:
        return self._thread.submit(self._copy, slot, layer).result

    def _copy(self, slot: _Slot, layer: int) -> torch.cuda.Event | None:
        if self._copied:  # its page-locked memory is free again; else each layer that is queued would take some
            self._copied.synchronize()
        with self._copying():
            _copy(self._make(layer), slot.memory)
            self._copied = self._event()
        return self._copied


LAYERS = {"resident": ResidentLayers, "host": HostLayers, "file": FileLayers}


def _copy(block: nn.Module, memory: torch.Tensor) -> None:
    """Copy the tensors of a block into memory of its size."""
    for tensor, part in zip(_tensors(block), _parts(block, memory), strict=True):
        part.copy_(tensor.detach())


def _tensors(block: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(block.parameters(), block.buffers())


def _places(block: nn.Module) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield the tensors of a block, and where each begins in its memory, in bytes."""
    start = 0
    for tensor in _tensors(block):
        yield tensor, start
        start += ALIGNMENT * math.ceil(tensor.nbytes / ALIGNMENT)


def _size(block: nn.Module) -> int:
    return max(start + tensor.nbytes for tensor, start in _places(block))


def _parts(block: nn.Module, memory: torch.Tensor) -> list[torch.Tensor]:
    """Return the parts of the memory of a block, uint8 [size], with the dtypes and shapes of its tensors."""
    return [
        memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape) for tensor, start in _places(block)
    ]


def _host_memory(size: int, device: torch.device) -> torch.Tensor:
    """Return uint8 [size] on the host, page-locked if the device is a GPU.

    torch's own page-locked memory would take up to twice as much, as its sizes are powers of two.

    Raises:
        MemoryError: there is no such memory, or it cannot be page-locked.
    """
    try:
        memory = torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:  # torch's for memory of a CPU
        raise MemoryError(f"{size} bytes of memory cannot be had ({error})") from error
    if device.type == "cuda":
        if error := int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), size, 0)):
            with contextlib.suppress(RuntimeError):  # CUDA reports the error again with the next launch
                torch.ones(1, device=device)
            raise MemoryError(f"{size} bytes of memory cannot be page-locked (CUDA error {error})")
        weakref.finalize(memory, _unlock, memory.data_ptr(), device).atexit = False
    return memory


def _unlock(address: int, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # a copy may be on its way
    torch.cuda.cudart().cudaHostUnregister(address)
