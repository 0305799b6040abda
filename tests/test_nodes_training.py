"""Training on ComfyUI's objects: equal to the headless run, and nothing is left behind however it ends."""

import random
from statistics import median

import pytest
import torch
from comfyui import headless, needs_comfyui, pack, small_parts
from runs import CROPS, personalized

from metalora.config import PersonalizeConfig
from metalora.jobs.photos import plan_photo
from metalora.measure import load_faces
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.images import read_photo

pytestmark = needs_comfyui
CONFIG = PersonalizeConfig(steps=12, learning_rate=3e-3, class_name="woman", save_every=100)


@pytest.fixture(scope="module")
def parts():
    """(MODEL, CLIP, VAE) of the tiny FLUX."""
    return small_parts("tiny_flux.TinyFlux")


def backbone_of(parts):
    return pack("nodes.backbone").ComfyBackbone(*parts)


def crops_of(portrait):
    planned = plan_photo(portrait, CROPS, load_faces(), multiple=16)
    return [planned.image(crop) for crop in planned.crops]


def trained(parts, crops, folder, cache, config=CONFIG, meta_down="random", show=None, backbone=None, heads=()):
    jobs, pictures = pack("metalora.jobs"), pack("metalora.jobs.personalize_pictures")
    config = pack("metalora.config").PersonalizeConfig(**{f: getattr(config, f) for f in vars(config)})
    job = pictures.personalize_pictures(
        backbone or backbone_of(parts),
        crops,
        folder / "ada.adapter.safetensors",
        folder / "states",
        config,
        flips=True,
        meta_down=meta_down,
        cache=pack("metalora.store.cache").Cache(cache),
        heads=heads,
    )
    return jobs.run(job, show or (lambda progress: None))


@pytest.mark.parametrize("network", ["tiny_flux.TinyFlux", "pipeline_folder.Miniature"])
@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_the_lora_is_that_of_the_headless_run(portrait, tmp_path, method: str, network: str):
    config = PersonalizeConfig(**{**vars(CONFIG), "method": method})
    cache, out = Cache(tmp_path / "one"), tmp_path / "headless.safetensors"
    wanted = personalized(headless(network), cache, portrait, out, config)
    meta_down = "random" if method == "meta-lora" else None
    found = trained(small_parts(network), crops_of(portrait), tmp_path, tmp_path / "two", config, meta_down)
    assert_same(wanted, found)


def assert_same(reference, found) -> None:
    """Up to rounding, which decides where a gradient is nearly nothing: AdamW moves by its sign."""
    wanted, tensors = files.read(reference.adapter, ("adapter",))[0], found.adapters.tensors()
    assert tensors.keys() == wanted.keys()
    errors = {name: ((tensors[name] - wanted[name]).norm() / wanted[name].norm()).item() for name in wanted}
    usual, worst = median(errors.values()), max(errors.values())
    print(f"relative difference {usual:.2e} in the median tensor, {worst:.2e} in the worst")
    assert usual < 1e-5, usual
    assert worst < 5e-3, max(errors.items(), key=lambda item: item[1])
    losses = (torch.tensor(one.training.losses) for one in (found, reference))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_where_the_head_counts_most_the_lora_is_that_of_the_headless_run(parts, tiny, portrait, tmp_path, caplog):
    settings = {"method": "lora", "background_weight": 0.1, "time_shift": 0.5, "ema_steps": 5}
    config = PersonalizeConfig(**{**vars(CONFIG), **settings})
    wanted = personalized(tiny, Cache(tmp_path / "one"), portrait, tmp_path / "headless.safetensors", config)
    photo = read_photo(portrait).movedim(0, -1)[None]
    inputs = {"face": "only", "resolution": 64, "max_upscale": 4.0, "finder": "sface"}
    shapes = {"ratios": "16:9, 4:3, 1:1, 3:4, 9:16", "scales": "1.5, 2, 2.5, 3.5, 4.5"}
    augment = pack("nodes.crops").AugmentFaceCrops.execute
    crops, _, _, heads, _ = augment(photo, **inputs, **shapes, learn_from="crops").args
    pictures = pack("nodes.pictures")
    crops, heads = pictures.photos_of(crops), pictures.masks_of(heads)
    assert_same(wanted, trained(parts, crops, tmp_path, tmp_path / "two", config, None, heads=heads))
    _, _, boxes, (whole,), _ = augment(photo, **inputs, **shapes, learn_from="whole").args
    assert len(boxes) == 1
    assert 0.02 < whole.mean() < 0.5
    noise = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    _, _, boxes, (nobody,), _ = augment(noise, **inputs, **shapes, learn_from="whole").args
    assert not boxes
    assert torch.equal(nobody, torch.ones(1, 64, 64))
    assert [record.message for record in caplog.records if "no face" in record.message] == [
        "Meta-LoRA: photo 1 shows no face: all of it counts as the person."
    ]


class Cancelled(Exception):
    """What ComfyUI raises when the user presses Cancel."""


def cancelled(_monkeypatch):
    step = random.randrange(1, CONFIG.steps)

    def show(progress):
        if getattr(progress, "loss", None) is not None and progress.index == step:
            raise Cancelled

    return show, Cancelled


def in_the_denoiser(monkeypatch, happens):
    """Something happens in the fifth forward pass with gradients."""
    denoiser = pack("nodes.backbone").ComfyDenoiser
    call, calls = denoiser.__call__, []

    def counted(self, *args, **kwargs):
        calls.append(torch.is_grad_enabled())
        made = call(self, *args, **kwargs)
        return happens(made) if sum(calls) == 5 else made

    monkeypatch.setattr(denoiser, "__call__", counted)


def out_of_memory(monkeypatch):
    def full(_made):
        raise torch.OutOfMemoryError("forced")

    in_the_denoiser(monkeypatch, full)
    return None, pack("metalora.config").UserError


def not_a_number(monkeypatch):
    in_the_denoiser(monkeypatch, lambda made: made * float("nan"))
    return None, pack("metalora.config").UserError


def exception_in_a_hook(monkeypatch):
    adapter = pack("metalora.method.adapter").Adapter
    forward, calls = adapter.forward, []

    def broken(self, *args):
        calls.append(1)
        if len(calls) == 500:
            raise ZeroDivisionError
        return forward(self, *args)

    monkeypatch.setattr(adapter, "forward", broken)
    return None, ZeroDivisionError


def output_of(model):
    network = model.model.diffusion_model
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in ((1, 16, 8, 8), (1, 9, 64), (1, 32))]
    with torch.inference_mode():
        return network(drawn[0], torch.tensor([0.5]), drawn[1], y=drawn[2], guidance=torch.tensor([3.5]))


def left_behind(model) -> list:
    network = model.model.diffusion_model
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules()]
    weights = [(id(weight), weight.requires_grad, weight.grad) for weight in network.parameters()]
    attributes = [sorted(vars(module)) for module in network.modules()]
    options = model.model_options["transformer_options"]
    return [hooks, weights, attributes, model.patches, options, model.object_patches]


@pytest.mark.parametrize("ending", [cancelled, out_of_memory, not_a_number, exception_in_a_hook])
def test_however_a_training_ends_the_model_is_as_before_and_the_next_runs(
    parts, portrait, tmp_path, monkeypatch, ending
):
    crops, cache = crops_of(portrait)[:3], tmp_path / "cache"
    with backbone_of(parts).denoiser():
        pass  # what loading leaves behind it leaves the first time
    before, state = output_of(parts[0]), left_behind(parts[0])
    with monkeypatch.context() as patched:
        show, error = ending(patched)
        with pytest.raises(error):
            trained(parts, crops, tmp_path, cache, show=show)
    assert torch.equal(output_of(parts[0]), before)
    assert left_behind(parts[0]) == state
    assert trained(parts, crops, tmp_path, cache).file.is_file()
    assert torch.equal(output_of(parts[0]), before)


@pytest.mark.parametrize("decoding", [True, False], ids=["decoded", "no room for decoding"])
def test_images_while_it_trains_show_what_was_learned_and_change_nothing(
    parts, portrait, tmp_path, monkeypatch, decoding: bool
):
    previews, devices = pack("nodes.previews"), pack("nodes.bridge.devices")
    monkeypatch.setattr(devices, "fits_beside", lambda *_given: decoding)
    crops, backbone, cache = crops_of(portrait)[:3], backbone_of(parts), pack("metalora.store.cache").Cache(tmp_path)
    seen = {"label": "", "caption": "a photo of a woman", "resolution": 64, "count": 1, "cache": cache}
    preview, drawn = previews.preview_of("images", 4, backbone, **seen), {}

    def show(progress):
        if isinstance(progress, pack("metalora.config").Step) and (image := preview(progress)):
            drawn[progress.index] = image.tobytes()

    shown = trained(parts, crops, tmp_path / "shown", tmp_path, show=show, backbone=backbone).adapters.tensors()
    plain = trained(parts, crops, tmp_path / "plain", tmp_path).adapters.tensors()
    assert all(torch.equal(shown[name], plain[name]) for name in plain)
    assert list(drawn) == [4, 8, 12]
    assert drawn[4] != drawn[12], "the adapter is not worn"
    assert backbone.current is None


def test_a_preview_without_memory_is_given_up_and_not_the_training(parts, portrait, tmp_path, monkeypatch):
    previews, backbone = pack("nodes.previews"), backbone_of(parts)
    cache = pack("metalora.store.cache").Cache(tmp_path)
    seen = {"label": "", "caption": "a photo of a woman", "resolution": 64, "count": 1, "cache": cache}
    preview = previews.preview_of("images", 1, backbone, **seen)

    def full(_self):
        raise torch.OutOfMemoryError("forced")

    monkeypatch.setattr(previews.ImagePreview, "sampled", full)
    config = pack("metalora.config")
    assert preview(config.Step(1, 2, 0.5)) is None
    assert not preview.possible


def test_a_training_that_cannot_fit_is_refused_before_anything_is_loaded(parts, monkeypatch):
    memory, devices = pack("nodes.memory"), pack("nodes.bridge.devices")
    monkeypatch.setattr(devices, "total_memory", lambda device: int(1.52e9))
    config = pack("metalora.config").PersonalizeConfig(batch=8)
    with pytest.raises(pack("metalora.config").UserError, match=r"on, \d+ x \d+ pixels would fit"):
        memory.make_room(backbone_of(parts), config, 1024)


def test_the_nodes_train_save_on_the_way_load_and_go_on(parts, portrait, tmp_path, monkeypatch, caplog):
    nodes, folders, images = pack("nodes.training"), pack("nodes.bridge.folders"), pack("nodes.pictures")
    monkeypatch.setattr(folders, "output_folder", lambda *names: tmp_path.joinpath(*names))
    monkeypatch.setattr(folders.folder_paths, "get_output_directory", lambda: str(tmp_path))
    options = {"class_name": "woman", "steps": 5, "rank": 2, "learning_rate": 3e-3, "seed": 0, "sites": "all"}
    options |= {"name": "ada", "flips": True, "preview": "none", "preview_every": 50, "lora_every": 2, "loras_kept": 1}
    crops = [images.image_of(crop) for crop in crops_of(portrait)[:2]]
    wires = {"model": [parts[0]], "clip": [parts[1]], "vae": [parts[2]], "crops": crops}

    def train(**more):
        given = {name: [value] for name, value in {**options, **more}.items()}
        return nodes.TrainPersonalization.execute(**wires, **given).args[0]

    with caplog.at_level("INFO"):
        first = train()
    assert "step 5 of 5, loss " in caplog.text
    assert [path.name for path in (tmp_path / "loras").iterdir()] == ["ada_00001_-step00004.safetensors"]
    (name,) = folders.adapter_files()
    loaded, lora, about = nodes.LoadAdapter.execute(name).args
    assert "woman" in about
    before = first.adapters.tensors()
    assert all(torch.equal(tensor, before[key]) for key, tensor in loaded.adapters.tensors().items())
    assert pack("nodes.bridge.models").unmatched_keys(parts[0], lora) == []
    again = train(name="more", rank=1, adapter=loaded, captions="a {class} in a garden", lora_every=0)
    assert again.metadata["continues"]
    assert (again.metadata["rank"], again.metadata["base"]) == ("2", first.metadata["base"])
    assert not any(torch.equal(tensor, before[key]) for key, tensor in again.adapters.tensors().items())
    with pytest.raises(pack("metalora.config").UserError, match=r"meta_down and adapter are both connected"):
        train(adapter=loaded, meta_down=pack("nodes.sockets").MetaDown("random"))
    with pytest.raises(pack("metalora.config").UserError, match=r"gone.adapter.safetensors is gone"):
        nodes.LoadAdapter.execute("gone.adapter.safetensors")


TEXTS = ["a photo of a woman", "a photo of a man, smiling, (in a red coat:1.2)", "quixotic zebra", ""]


@pytest.fixture(scope="module", params=["tiny_flux.TinyFlux", "pipeline_folder.Miniature"])
def both(request):
    """(the headless backbone, ComfyUI's)."""
    return headless(request.param), pack("nodes.backbone").ComfyBackbone(*small_parts(request.param))


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_read_alike(both, text: str):
    assert (both[1].name, both[1].max_tokens) == (both[0].name, both[0].max_tokens)
    with both[0].text_encoders() as reference, both[1].text_encoders() as encode:
        found, wanted = encode(text), reference(text)
        torch.testing.assert_close(found["cross_attn"], wanted["tokens"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["pooled_output"], wanted["pooled"], rtol=1e-4, atol=1e-5)


def test_a_photo_is_encoded_and_decoded_alike(both, portrait):
    photo = read_photo(portrait)[:, :96, :128]
    with both[0].autoencoder() as reference, both[1].autoencoder() as autoencoder:
        latents = reference.encode(photo)
        torch.testing.assert_close(autoencoder.encode(photo), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(autoencoder.decode(latents), reference.decode(latents), rtol=1e-4, atol=1e-4)
