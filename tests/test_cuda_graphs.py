"""CUDA graphs as far as a machine without a GPU can see: what is asked of torch, and who is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metalora.backbones.speed import Speed, prepare
from metalora.cli import main
from metalora.config import UserError


class Block(nn.Module):
    """A block that notes how it is to be compiled."""

    compiled: dict[str, Any]

    def compile(self, **options: Any) -> None:
        self.compiled = options

    def forward(self, x: Tensor) -> Tensor:
        return x


class Network(nn.Sequential):
    """Of blocks, as diffusers' transformers name theirs."""

    _repeated_blocks = ("Block",)


def test_each_pass_of_the_network_is_a_step_of_its_graphs(monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append("step"))
    network = prepare(Network(Block(), Block()), Speed(compiled=True, cuda_graphs=True))
    for block in network:
        assert block.compiled == {"fullgraph": True, "dynamic": True, "mode": "reduce-overhead"}
    for expected in (1, 2):
        network(torch.ones(1))
        assert len(steps) == expected
    plain = prepare(Network(Block()), Speed(compiled=True))
    plain(torch.ones(1))
    assert plain[0].compiled["mode"] is None
    assert len(steps) == 2


def test_what_needs_a_gpu_is_refused_without_one_and_graphs_without_compiling():
    with pytest.raises(UserError, match="give both, or neither"):
        Speed(cuda_graphs=True)
    with pytest.raises(UserError, match="needs an NVIDIA GPU, and the base runs on cpu"):
        Speed(compiled=True, cuda_graphs=True).check(torch.device("cpu"))
    with pytest.raises(UserError, match="--attention cudnn needs an NVIDIA GPU, and the base runs on cpu"):
        Speed(attention="cudnn").check(torch.device("cpu"))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["generate", "--prompt", "a photo"], "needs an NVIDIA GPU"),
        (["benchmark", "plan", "run"], "a benchmark trains many people"),
        (["meta-train", "people", "--out", "x.safetensors"], "heads in another place"),
    ],
)
def test_the_commands_refuse_it_in_a_sentence(
    command: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--backbone", "tiny", "--device", "cpu", "--compile", "--cuda-graphs"]) == 1
    assert sentence in capsys.readouterr().err
