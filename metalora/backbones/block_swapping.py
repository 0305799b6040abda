"""Blocks of a frozen transformer that live in main memory and visit the device, each fetched one ahead of its turn.

Two buffers on the device take turns: while one block computes, the next one's weights are copied into the other, on a
stream of their own. Nothing is ever copied back, for nothing of a base is trained.

Backward needs a block's weights again. With checkpoints the block runs once more, which fetches it as forward did, and
its buffer is left alone until the block before it runs: autograd goes from the last operation to the first, so it has
done with this block by then. Without checkpoints autograd would keep views of a buffer that soon holds another block;
it is given a note of the place instead, and the note fetches the block.

Only while a block runs are its parameters in a buffer; at any other time they are at home, to be read or changed.

Not diffusers' group offloading: its hooks send a block away when its forward pass returns. Without checkpoints autograd
keeps each block's copy on the device all the same; with them, torch stops the second forward pass where it has what it
needs, so that the hook never runs, and after backward every block is there (`tests/test_block_swapping.py` shows it).
"""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..config import UserError

BUFFERS = 2  # one that computes, one that is filled
ALIGNED = 256  # bytes, of where a tensor begins in a buffer


def swap_blocks(network: Any, count: int, device: torch.device) -> "BlockSwapping":
    """Move a diffusers transformer to the device, all but `count` of its blocks, which are fetched while it runs."""
    lists = lists_of(network)
    check_count(count, sum(map(len, lists)))
    swapping = BlockSwapping(swapped_of(lists, count), device)
    at_home = {id(module) for block in swapping.modules for module in block.modules()}
    for module in network.modules():
        if id(module) not in at_home:
            module._apply(lambda tensor: tensor.to(device), recurse=False)
    swapping.attach(network)
    return swapping


def check_count(count: int, blocks: int) -> None:
    """A UserError for a number of blocks that spares nothing or that there are not."""
    if not BUFFERS < count <= blocks:
        raise UserError(
            f"{count} blocks cannot be swapped: {BUFFERS} buffers take their place on the device, so that it must be "
            f"{BUFFERS + 1} or more, and the base has {blocks} blocks. Choose --swap-blocks from {BUFFERS + 1} to "
            f"{blocks}, or 0."
        )


def lists_of(network: Any) -> list[list[nn.Module]]:
    """The lists of blocks that a diffusers transformer's class calls repeated, in the order in which they stand."""
    lists: dict[str, list[nn.Module]] = {}
    for name, block in network.named_modules():
        if type(block).__name__ in (network._repeated_blocks or network._no_split_modules):
            lists.setdefault(name.rpartition(".")[0], []).append(block)
    return list(lists.values())


def swapped_of(lists: Sequence[Sequence[Any]], count: int) -> list[Any]:
    """Which blocks are swapped, in their order: those of the last list first, spread evenly.

    FLUX's last are its single blocks, which compute about twice as much for each byte as the double ones, so that
    their copies hide better.
    """
    chosen: list[Any] = []
    for blocks in reversed(lists):
        own = min(count - len(chosen), len(blocks))
        chosen = spread(blocks, own) + chosen
    return chosen


def spread(blocks: Sequence[Any], count: int) -> list[Any]:
    """So many of the blocks, at even distances."""
    return [blocks[(2 * index + 1) * len(blocks) // (2 * count)] for index in range(count)]


class Place(NamedTuple):
    """Where a tensor of a swapped block lies in any memory that holds the block."""

    begin: int  # bytes
    end: int
    dtype: torch.dtype
    shape: torch.Size

    def view(self, memory: Tensor) -> Tensor:
        """The tensor in bytes of memory [n]."""
        return memory[self.begin : self.end].view(self.dtype).view(self.shape)


class SwappedBlock:
    """A block whose weights are one stretch of main memory, page-locked where copies to a GPU shall not wait."""

    def __init__(self, block: nn.Module, stream: torch.cuda.Stream | None):
        self.tensors = [*block.parameters(), *block.buffers()]
        self.places, self.bytes = [], 0
        for tensor in self.tensors:
            end = self.bytes + tensor.numel() * tensor.element_size()
            self.places.append(Place(self.bytes, end, tensor.dtype, tensor.shape))
            self.bytes = -(-end // ALIGNED) * ALIGNED
        self.home = torch.empty(self.bytes, dtype=torch.uint8)
        if stream is not None:
            lock_pages(self, self.home, stream)
        self.views = [self.views_in(self.home)]
        for view, tensor in zip(self.views[0], self.tensors, strict=True):
            view.copy_(tensor.detach())
        self.go_home()

    def views_in(self, memory: Tensor) -> list[Tensor]:
        """Its tensors in bytes of memory."""
        return [place.view(memory) for place in self.places]

    def wear(self, views: list[Tensor]) -> None:
        """Compute with these from now on; the parameters stay the same objects."""
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view

    def go_home(self) -> None:
        """Its parameters are those in main memory."""
        self.wear(self.views[0])


class Note(NamedTuple):
    """A tensor that autograd keeps for backward, as its place in a swapped block."""

    block: int
    dtype: torch.dtype
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]


class BlockSwapping:
    """The swapped blocks, and which of them are on the device. On a CPU the same, without streams."""

    def __init__(self, modules: list[nn.Module], device: torch.device):
        self.modules, self.device = modules, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.blocks = [SwappedBlock(module, self.stream) for module in modules]
        largest = max(block.bytes for block in self.blocks)
        self.buffers = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        self.by_address = {buffer.untyped_storage().data_ptr(): slot for slot, buffer in enumerate(self.buffers)}
        for block in self.blocks:
            block.views += [block.views_in(buffer) for buffer in self.buffers]
        self.holds: list[int | None] = [None] * BUFFERS  # the block that each buffer holds, or is being filled with
        self.copied = [torch.cuda.Event() for _ in range(BUFFERS)] if self.stream is not None else []
        self.present: int | None = None  # the block that computes
        self.forwards = True
        if self.stream is not None:
            for buffer in self.buffers:
                buffer.record_stream(self.stream)  # when freed, not given to others before the last copy is done

    def attach(self, network: nn.Module) -> None:
        """Fetch each block when it is called, in forward and in the second forward pass of a checkpoint."""
        for index, module in enumerate(self.modules):
            module.register_forward_pre_hook(lambda _module, _inputs, index=index: self._enter(index))
            leave = self.blocks[index].go_home
            module.register_forward_hook(lambda _module, _inputs, _output, leave=leave: leave(), always_call=True)
        kept = saved_tensors_hooks(self.note_of, self.tensor_of)
        entered: list[saved_tensors_hooks] = []

        def before(model: Any, _inputs: object) -> None:
            self._begin()
            if torch.is_grad_enabled() and not model.gradient_checkpointing:
                kept.__enter__()
                entered.append(kept)

        def after(_model: nn.Module, _inputs: object, _output: object) -> None:
            self.forwards = False
            while entered:
                entered.pop().__exit__()

        network.register_forward_pre_hook(before)
        network.register_forward_hook(after, always_call=True)  # also after an error

    def fetch(self, index: int) -> int:
        """The buffer that holds this block, which computes from now on; the next block is on its way."""
        if index not in self.holds:
            self._copy(index)
        slot = self.holds.index(index)
        if index != self.present:
            if self.stream is not None:
                torch.cuda.current_stream(self.device).wait_event(self.copied[slot])
            self.present = index
            following = index + 1 if self.forwards else index - 1
            # At either end nothing follows: where the direction turns, both buffers hold what is needed first.
            if following in range(len(self.blocks)) and following not in self.holds:
                self._copy(following)
        return slot

    def note_of(self, tensor: Tensor) -> Tensor | Note:
        """What autograd keeps: a note instead of a view of a buffer, anything else as it is."""
        slot = self.by_address.get(tensor.untyped_storage().data_ptr())
        if slot is None:
            return tensor
        block = self.holds[slot]
        assert block is not None
        assert block == self.present, (block, self.present)
        return Note(block, tensor.dtype, int(tensor.storage_offset()), tensor.shape, tensor.stride())

    def tensor_of(self, kept: Tensor | Note) -> Tensor:
        """What backward gets: the tensor itself, or that place in the block, which is fetched."""
        if not isinstance(kept, Note):
            return kept
        memory = self.buffers[self.fetch(kept.block)].untyped_storage()
        empty = torch.empty(0, dtype=kept.dtype, device=self.device)
        return empty.set_(memory, kept.offset, kept.shape, kept.stride)

    def _begin(self) -> None:
        """A forward pass of the whole network: the first block is on its way before anything computes."""
        self.forwards = True
        if not torch.is_grad_enabled():  # images: the weights at home may have been changed since
            self.holds, self.present = [None] * BUFFERS, None
        if 0 not in self.holds:
            self._copy(0)

    def _enter(self, index: int) -> None:
        block = self.blocks[index]
        block.wear(block.views[1 + self.fetch(index)])

    def _copy(self, index: int) -> None:
        """Into the buffer that does not compute; what it held has been computed with, or will have been by then."""
        slot = next(slot for slot, block in enumerate(self.holds) if block is None or block != self.present)
        self.holds[slot] = index
        block = self.blocks[index]
        target = self.buffers[slot][: block.bytes]
        if self.stream is None:
            target.copy_(block.home)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(block.home, non_blocking=True)
            self.copied[slot].record(self.stream)


def lock_pages(owner: object, memory: Tensor, stream: torch.cuda.Stream) -> None:
    """Page-lock main memory where it lies, as long as its owner lives.

    Not `pin_memory`, which rounds each allocation up to a power of two: half as much again for FLUX's blocks.
    """
    address = memory.data_ptr()
    code = int(torch.cuda.cudart().cudaHostRegister(address, memory.numel(), 1))  # 1: for all devices of the process
    if code:
        raise UserError(
            f"{memory.numel() / 1e9:.2f} GB of main memory cannot be page-locked (CUDA error {code}). Use a lower "
            "--swap-blocks, --eight-bit or --four-bit."
        )
    weakref.finalize(owner, unlock_pages, address, stream).atexit = False


def unlock_pages(address: int, stream: torch.cuda.Stream) -> None:
    """After the last copy out of it."""
    stream.synchronize()
    torch.cuda.cudart().cudaHostUnregister(address)
