"""Heads that start at the mean of those that stage 1 learned: an option, and what holds with it and without."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import FLAGS
from runs import CONFIG as STAGE_TWO
from runs import meta_down_file, personalized
from stage_one import CONFIG, latents_of, toy_run, toy_training
from toy import ToyDenoiser

from metalora.backbones.flux import FluxBackbone
from metalora.cli import main
from metalora.config import UserError
from metalora.jobs import run
from metalora.jobs.checkpoints import Checkpoints
from metalora.jobs.lora import merge_adapter
from metalora.jobs.meta_downs import starting_adapters
from metalora.method.adapter import Adapters, new_adapters
from metalora.method.even_rows import even_rows
from metalora.method.flat import Heads, views
from metalora.method.flow import flow_loss, generator_of
from metalora.method.mean_heads import factored, moved, start_at_mean, summed_products
from metalora.method.ranks import ALONE
from metalora.store import files
from metalora.store.cache import Cache

MEAN = replace(STAGE_TWO, heads="mean", rank=4)


@pytest.fixture
def trained(tiny: FluxBackbone, tmp_path: Path) -> Path:
    """A Meta-Down file with mean heads, made up."""
    path = meta_down_file(tiny, tmp_path / "woman.safetensors")
    tensors, facts = files.read(path, ("meta-down",))
    g = torch.Generator().manual_seed(5)
    tensors |= {f"{s.name}.mean_heads": 0.01 * torch.randn(s.out_features, 16, generator=g) for s in tiny.sites("all")}
    files.write(path, tensors, "meta-down", facts)
    return path


def updates(adapters: Adapters) -> dict[str, torch.Tensor]:
    return {name: one.up.data @ one.mid.data @ one.down.data for name, one in adapters.by_name.items()}


def test_without_the_option_adapters_start_bit_for_bit_as_on_a_file_that_has_no_mean_heads(
    tiny: FluxBackbone, trained: Path, tmp_path: Path
):
    plain = meta_down_file(tiny, tmp_path / "plain.safetensors")
    with_them, _ = starting_adapters(tiny, STAGE_TWO, str(trained))
    without, _ = starting_adapters(tiny, STAGE_TWO, str(plain))
    assert with_them.tensors().keys() == without.tensors().keys()
    assert all(torch.equal(tensor, without.tensors()[name]) for name, tensor in with_them.tensors().items())
    assert not any(adapter.up.any() for adapter in with_them.by_name.values())


def test_with_it_the_start_is_the_adapter_of_the_mean_heads(tiny: FluxBackbone, trained: Path):
    tensors, _ = files.read(trained, ("meta-down",))
    whole, _ = starting_adapters(tiny, replace(MEAN, rank=16), str(trained))
    for name, update in updates(whole).items():
        expected = tensors[f"{name}.mean_heads"] @ tensors[f"{name}.down"]
        torch.testing.assert_close(update, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_at_a_smaller_rank_the_start_is_as_near_to_it_as_any_can_be(rank: int):
    product = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    mid, up = factored(product, rank)
    assert mid.shape == (rank, 8)
    left = torch.linalg.svdvals(product)[rank:]
    torch.testing.assert_close((product - up @ mid).norm(), left.norm())
    torch.testing.assert_close(mid.norm(dim=1), torch.full((rank,), 3**-0.5))  # as long as fresh ones


def test_the_finished_lora_is_the_adapter(tiny: FluxBackbone, portrait: Path, warm_cache: Cache, trained: Path):
    out = trained.with_name("ada.safetensors")
    made = personalized(tiny, portrait, out, warm_cache, replace(MEAN, steps=2), str(trained))
    run(merge_adapter(made.adapter, trained.with_name("merged.safetensors"), "diffusers"))
    lora, merged = (files.read(path, ("lora",))[0] for path in (out, trained.with_name("merged.safetensors")))
    assert all(torch.equal(merged[name], tensor) for name, tensor in lora.items())
    start, _ = starting_adapters(tiny, MEAN, str(trained))
    adapter, facts = files.read(made.adapter, ("adapter",))
    name = "transformer_blocks.0.attn.to_q"
    assert not torch.equal(adapter[f"{name}.up"], start.by_name[name].up)
    torch.testing.assert_close(adapter[f"{name}.up"], start.by_name[name].up, rtol=0, atol=2.1 * MEAN.learning_rate)
    assert '"heads": "mean"' in facts["knobs"]


def test_a_meta_down_that_has_none_is_refused_by_name(tiny: FluxBackbone, tmp_path: Path):
    plain = meta_down_file(tiny, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match=r"plain\.safetensors has no mean heads at 40 of the 40 sites"):
        starting_adapters(tiny, MEAN, str(plain))
    with pytest.raises(UserError, match="random has learned no heads"):
        starting_adapters(tiny, MEAN, "random")


def test_stage_one_averages_what_people_add_on_top_of_the_meta_down(denoiser: ToyDenoiser):
    config = replace(CONFIG, steps=12)
    training, _ = toy_run(denoiser, config)
    mean, heads = training.mean_heads(12), training.heads
    assert mean.people == len(heads.names) == 5
    mids, ups = views(heads.weights, heads.shapes)[::2], views(heads.weights, heads.shapes)[1::2]
    for product, mid, up in zip(mean.products.values(), mids, ups, strict=True):
        torch.testing.assert_close(product, sum(up[n] @ mid[n] for n in range(5)) / 5)
    assert not training.mean.people, "the present bucket is counted when it ends"
    both, _ = toy_run(denoiser, replace(CONFIG, steps=24))
    assert both.mean_heads(24).people == 10
    assert toy_run(denoiser, replace(CONFIG, steps=5))[0].mean_heads(5).people == 0, "warm-up only"


def test_checkpoints_keep_them_and_older_ones_without_them_still_load(denoiser: ToyDenoiser, tmp_path: Path):
    training, _ = toy_run(denoiser, replace(CONFIG, steps=16))
    checkpoints = Checkpoints(tmp_path, {"kind of run": "toy"}, keep=2)
    checkpoints.save(training, 16, {"losses": []})
    again = toy_training()
    checkpoints.load(checkpoints.latest(), again)
    assert again.mean.people == training.mean.people == 5
    assert all(torch.equal(again.mean.products[name], product) for name, product in training.mean.products.items())
    tensors, facts = files.read(checkpoints.latest(), ("checkpoint",))
    older = {name: tensor for name, tensor in tensors.items() if not name.startswith("mean.")}
    files.write(checkpoints.latest(), older, "checkpoint", {key: facts[key] for key in facts if key != "mean_of"})
    checkpoints.load(checkpoints.latest(), again)
    assert again.mean.people == 0
    assert not again.mean.products


def test_two_spellings_of_one_adapter_do_not_cancel():
    parameters = [torch.nn.Parameter(torch.zeros(1, 1, 4)), torch.nn.Parameter(torch.zeros(1, 6, 1))]
    row = torch.randn(10)
    heads = Heads(parameters, ["a", "b", "never seen"], [row, -row, torch.randn(10)])
    heads.steps[:2] = 1
    sums, people = summed_products(heads, ["site"], ALONE)
    assert people == 2
    torch.testing.assert_close(sums["site"], 2 * torch.outer(row[4:], row[:4]))


def test_when_the_meta_down_has_moved_the_mean_says_the_same_on_it():
    product, before, mixed = torch.randn(6, 4), torch.randn(4, 20), torch.randn(4, 4)
    torch.testing.assert_close(moved(product, before, mixed @ before) @ mixed @ before, product @ before)
    assert torch.equal(moved(product, before, before).round(decimals=4), product.round(decimals=4))


def test_even_rows_span_the_same_and_are_as_long_as_fresh_ones():
    down = torch.randn(4, 4) @ torch.randn(4, 20) * torch.tensor([[9.0], [1.0], [0.1], [1.0]])
    rows = even_rows(down)
    torch.testing.assert_close(rows @ rows.T, torch.eye(4) / 3, atol=1e-5, rtol=0)
    product = torch.randn(6, 4)
    torch.testing.assert_close(moved(product, down, rows) @ rows, product @ down, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(even_rows(rows), rows, atol=1e-6, rtol=0)
    assert even_rows(torch.randn(8, 6)).shape == (8, 6), "more rows than a layer has inputs"


def test_mean_heads_know_what_people_have_in_common(denoiser: ToyDenoiser):
    """Someone new, before any step: photos of the domain fit better at the mean than at zero."""
    config = replace(CONFIG, steps=360, bucket_steps=180, warmup_steps=60, learning_rate=3e-3)
    training, _ = toy_run(denoiser, config)
    mean = training.mean_heads(360)
    assert mean.people == 10
    losses = {}
    for start in ("zero", "mean"):
        site_of = training.adapters.sites.values()
        adapters = new_adapters(site_of, 2, generator_of("new"), meta_down=training.meta_down())
        if start == "mean":
            start_at_mean(adapters, mean.products)
        photos = torch.stack([latents_of("stranger", photo) for photo in range(16)])
        with torch.no_grad(), adapters.attached(denoiser.network):
            losses[start] = flow_loss(denoiser, photos, torch.ones(16, 8), generator_of("measured")).item()
    assert losses["mean"] < 0.9 * losses["zero"], losses
    assert toy_training().mean.people == 0


def test_a_benchmark_that_asks_for_them_is_refused_when_it_is_planned(
    tiny: FluxBackbone, tmp_path: Path, capsys: pytest.CaptureFixture
):
    plain = meta_down_file(tiny, tmp_path / "plain.safetensors")
    command = ["benchmark", "plan", str(tmp_path / "run"), "--heads", "mean", *FLAGS, "--methods", "meta-lora"]
    for given in (str(plain), "random"):
        assert main([*command, "--meta-down", given, "--clip", "none"]) == 1
        assert f"{Path(given).stem}.safetensors has no mean heads" in capsys.readouterr().err
        assert not (tmp_path / "run" / "plan.json").exists()
