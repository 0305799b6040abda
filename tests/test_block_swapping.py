"""Blocks that visit the device change nothing but where they are."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from trained import PROMPT, adapters_of, gradients

from metalora.backbones.block_swapping import BUFFERS, swap_blocks, swapped_of
from metalora.backbones.family import PipelineDenoiser
from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.speed import Checkpointing
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import UserError
from metalora.jobs import run

CPU = torch.device("cpu")


def swapped(count: int, **others: bool) -> PipelineBackbone:
    return PipelineBackbone(TinyFlux(), CPU, torch.float32, Speed(swapped_blocks=count, **others))


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("how", list(Checkpointing), ids=lambda how: how.name)
@pytest.mark.parametrize("count", [3, 4])
def test_gradients_are_the_same_bits_and_so_are_the_weights_afterwards(
    tiny: PipelineBackbone, count: int, how: Checkpointing
):
    adapters = adapters_of(tiny)
    with tiny.denoiser() as denoiser:  # which recomputes nothing
        expected, weights = gradients(denoiser, adapters, ((8, 8), (6, 10))), weights_of(denoiser.network)
    with swapped(count).denoiser() as denoiser:
        denoiser.checkpointing(how)
        assert torch.equal(gradients(denoiser, adapters, ((8, 8), (6, 10))), expected)
        found = weights_of(denoiser.network)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("kind", ["eight_bit", "four_bit"])
def test_so_are_those_through_8_or_4_bits(kind: str):
    if kind == "four_bit":
        pytest.importorskip("bitsandbytes")
    resident = PipelineBackbone(TinyFlux(), CPU, torch.float32, Speed(**{kind: True}))
    found = []
    for backbone in (resident, swapped(4, **{kind: True})):
        with backbone.denoiser() as denoiser:
            found.append(gradients(denoiser, adapters_of(backbone)))
    assert torch.equal(*found)


def test_images_are_the_same_bits(tiny: PipelineBackbone):
    found = []
    for backbone in (tiny, swapped(3)):
        with backbone.denoiser() as denoiser:
            found.append(run(denoiser.sample(PROMPT, (64, 64), 2, 3.5, [0])))
    assert torch.equal(*found)


def test_never_more_blocks_are_on_the_device_than_promised(tiny: PipelineBackbone):
    """A block is there if a buffer holds it, and none computes with anything but a buffer."""
    network = tiny.parts.transformer(CPU, torch.float32).requires_grad_(False)
    swapping = swap_blocks(network, 4, CPU)
    buffers = {buffer.untyped_storage().data_ptr() for buffer in swapping.buffers}
    homes = {block.home.untyped_storage().data_ptr() for block in swapping.blocks}
    assert len(buffers) == BUFFERS
    assert {w.untyped_storage().data_ptr() for m in swapping.modules for w in m.parameters()} == homes
    seen = []

    def look(module: nn.Module, _inputs: object) -> None:
        own = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
        worn = {w.untyped_storage().data_ptr() for m in swapping.modules for w in m.parameters()} & buffers
        seen.append((own == worn, len(worn)))

    for module in swapping.modules:
        module.register_forward_pre_hook(look)
    denoiser = PipelineDenoiser(tiny.family, network, tiny.parts.scheduler_config, {})
    denoiser.checkpointing(Checkpointing.FULL)
    gradients(denoiser, adapters_of(tiny))
    assert seen == [(True, 1)] * 8  # four blocks forward, and again backward


class LateStream:
    """Stands in for a CUDA stream: what is copied on it arrives only when somebody waits for it."""

    def __init__(self) -> None:
        self.queue: list[tuple[str, Any]] = []

    def wait_stream(self, _other: object) -> None:
        """Of computing, which here is always done."""

    def wait_event(self, event: "LateEvent") -> None:
        while event.stream.queue and not event.done:
            what, work = event.stream.queue.pop(0)
            if what == "event":
                work.done = True
            else:
                work()
        assert event.done, "waited for an event that was never recorded"


class LateEvent:
    def __init__(self, stream: LateStream) -> None:
        self.stream, self.done = stream, False

    def record(self, stream: LateStream) -> None:
        self.done = False
        stream.queue.append(("event", self))


class Late(TorchFunctionMode):
    """While inside, copies are queued."""

    def __init__(self, stream: LateStream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_function__(self, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        if function is not torch.Tensor.copy_:
            return function(*inputs, **(options or {}))
        assert options == {"non_blocking": True}
        self.stream.queue.append(("copy", lambda: function(*inputs)))
        return inputs[0]


@pytest.mark.parametrize("how", [Checkpointing.NONE, Checkpointing.FULL], ids=lambda how: how.name)
def test_copies_that_arrive_as_late_as_they_may_change_nothing(
    tiny: PipelineBackbone, how: Checkpointing, monkeypatch: pytest.MonkeyPatch
):
    """The order of streams and events, without a GPU; that a copy is not too early shows where they are at once."""
    network = tiny.parts.transformer(CPU, torch.float32).requires_grad_(False)
    denoiser, adapters = PipelineDenoiser(tiny.family, network, tiny.parts.scheduler_config, {}), adapters_of(tiny)
    expected = gradients(denoiser, adapters, ((8, 8), (8, 8)))
    swapping, compute = swap_blocks(network, 4, CPU), LateStream()
    swapping.stream = LateStream()
    swapping.copied = [LateEvent(swapping.stream) for _ in range(BUFFERS)]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.cuda, "stream", Late)
    denoiser.checkpointing(how)
    assert torch.equal(gradients(denoiser, adapters, ((8, 8), (8, 8))), expected)


@pytest.mark.parametrize("how", [Checkpointing.NONE, Checkpointing.FULL], ids=lambda how: how.name)
def test_each_copy_is_begun_one_block_ahead_but_the_very_first(
    tiny: PipelineBackbone, how: Checkpointing, monkeypatch: pytest.MonkeyPatch
):
    network = tiny.parts.transformer(CPU, torch.float32).requires_grad_(False)
    swapping, copies = swap_blocks(network, 4, CPU), []
    copy = swapping._copy
    monkeypatch.setattr(swapping, "_copy", lambda index: (copies.append((index, swapping.present)), copy(index)))
    denoiser = PipelineDenoiser(tiny.family, network, tiny.parts.scheduler_config, {})
    denoiser.checkpointing(how)
    gradients(denoiser, adapters_of(tiny), ((8, 8), (8, 8)))
    once = [(2, 1), (3, 2), (1, 2), (0, 1)]
    assert copies == [(0, None), (1, 0), *once, *once]


def test_an_error_on_the_way_leaves_nothing_behind(tiny: PipelineBackbone):
    backbone, adapters = swapped(4), adapters_of(tiny)
    with tiny.denoiser() as denoiser:
        expected = gradients(denoiser, adapters)
    with backbone.denoiser() as denoiser:

        def fail(_module: nn.Module, _inputs: object) -> None:
            raise RuntimeError("cancelled")

        handle = denoiser.network.single_transformer_blocks[0].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="cancelled"):
            gradients(denoiser, adapters)
        handle.remove()
        assert torch.equal(gradients(denoiser, adapters), expected)


def test_single_blocks_are_swapped_first_and_evenly():
    doubles, singles = [f"d{n}" for n in range(19)], [f"s{n}" for n in range(38)]
    assert swapped_of([doubles, singles], 4) == ["s4", "s14", "s23", "s33"]
    assert swapped_of([doubles, singles], 39) == ["d9", *singles]
    assert swapped_of([doubles, singles], 57) == doubles + singles


def test_what_cannot_be_swapped_is_refused(tiny: PipelineBackbone):
    for count in (1, 2, 5, -1):
        with pytest.raises(UserError, match="--swap-blocks from 3 to 4"), swapped(count).denoiser():
            pass
    with pytest.raises(UserError, match="--compile and --swap-blocks"):
        Speed(compiled=True, swapped_blocks=3)
    with pytest.raises(UserError, match="leave one out"):
        Speed(eight_bit=True, four_bit=True)
