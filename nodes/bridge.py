"""The only file that touches ComfyUI's insides: its MODEL, CLIP and VAE, its folders, its progress bar.

Whatever another version of ComfyUI changes is changed here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.ldm.flux.model
import comfy.lora
import comfy.lora_convert
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.flux
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.sd1_clip import SDTokenizer
from PIL import Image
from torch import Tensor, nn
from transformers import T5TokenizerFast

from ..metalora.backbones.flux_configs import max_tokens
from ..metalora.backbones.keys import FluxShape
from ..metalora.config import UserError
from .small_flux import SmallFlux

FOLDER = "meta_lora"  # of Meta-Down files, under models/
KEY = "metalora"  # of what we hang on a MODEL
MADE = "meta_downs"  # stage 1's own, under output/meta_lora
CLIP_EMBEDDINGS = "text_model.embeddings.token_embedding"
PREVIEW = 512  # pixels, the longer side

Forward = Callable[..., Tensor]


# The parts of a model.


def network_of(model: Any) -> nn.Module:
    """The FLUX in a MODEL; a UserError for anything else."""
    network = model.model.diffusion_model
    if type(network) is not comfy.ldm.flux.model.Flux:
        raise UserError(f"This MODEL is a {type(model.model).__name__}. Meta-LoRA needs FLUX.1-dev or FLUX.1-schnell.")
    if network.in_channels != network.out_channels:
        raise UserError(
            f"This FLUX reads {network.in_channels} numbers a token and returns {network.out_channels}: a Fill, Depth "
            "or Canny variant, which needs another image as input. Use FLUX.1-dev or FLUX.1-schnell."
        )
    return network


def flux_shape(model: Any) -> FluxShape:
    """The architecture of a MODEL."""
    network: Any = network_of(model)
    params = network.params
    return FluxShape(
        width=params.hidden_size,
        double_blocks=params.depth,
        single_blocks=params.depth_single_blocks,
        in_channels=network.in_channels,
        joint_dim=params.context_in_dim,
        pooled_dim=params.vec_in_dim,
        guidance=params.guidance_embed,
        mlp_ratio=int(params.mlp_ratio),
    )


def compute_dtype(model: Any) -> torch.dtype:
    """What the network computes in, which fp8 weights are cast to."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def casts_weights(model: Any) -> bool:
    """Whether layers make a copy of their weights in each forward pass: fp8, or what does not fit the device."""
    network = network_of(model)
    layers = (module for module in network.modules() if isinstance(module, comfy.ops.CastWeightBiasOp))
    return any(layer.comfy_cast_weights for layer in layers)


def weights_of(model: Any, part: str) -> dict[str, Tensor]:
    """The tensors that make up a part: "transformer" of a MODEL, "text_encoders" of a CLIP, "autoencoder" of a VAE."""
    module = {
        "transformer": lambda: network_of(model),
        "text_encoders": lambda: model.cond_stage_model,
        "autoencoder": lambda: model.first_stage_model,
    }[part]()
    return module.state_dict()


def patches_of(patcher: Any) -> str:
    """Names the LoRAs that are on a MODEL or CLIP already: new for every change of them."""
    return str(patcher.patches_uuid) if patcher.patches else ""


def check_clip(clip: Any) -> None:
    """Refuse what is not FLUX's pair of text encoders."""
    if not isinstance(clip.tokenizer, comfy.text_encoders.flux.FluxTokenizer):
        raise UserError(
            f"This CLIP is a {type(clip.cond_stage_model).__name__}. "
            "Load clip_l and t5xxl with DualCLIPLoader, type flux."
        )


def prompt_tokens(clip: Any, shape: FluxShape) -> int:
    """How many of T5's tokens a prompt is padded to: as FLUX was trained, or as a smaller one's loader says."""
    known = shape.name in ("flux.1-dev", "flux.1-schnell")
    return max_tokens(shape) if known else clip.tokenizer.t5xxl.min_length


def encode_prompt(clip: Any, text: str, tokens: int) -> tuple[Tensor, Tensor]:
    """(T5's tokens [1, n, d], CLIP's pooled output [1, e]); brackets in a caption are letters, not weights."""
    tokenized = clip.tokenize(text, disable_weights=True, tokenizer_options={"t5xxl_min_length": tokens})
    embedded, pooled = clip.encode_from_tokens(tokenized, return_pooled=True)
    return embedded, pooled


def latents_in(latents: Tensor) -> Tensor:
    """What a FLUX's autoencoder makes -> what its transformer takes."""
    return comfy.latent_formats.Flux().process_in(latents)


def latents_out(latents: Tensor) -> Tensor:
    """The inverse."""
    return comfy.latent_formats.Flux().process_out(latents)


def differentiable_attention(_attention: Forward, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's own, whatever attention ComfyUI was started with: some have no backward."""
    return attention_pytorch(*args, **kwargs)


# Devices and progress.


def load_on_device(patcher: Any, memory: int = 0) -> Any:
    """A clone of a MODEL on its device, with `memory` bytes left for us; what does not fit stays offloaded."""
    clone = patcher.clone()
    comfy.model_management.load_models_gpu([clone], memory_required=memory)
    return clone


def free_device(device: torch.device, memory: int) -> None:
    """Make room: ComfyUI keeps models of earlier prompts until somebody asks."""
    comfy.model_management.free_memory(memory, device)
    comfy.model_management.soft_empty_cache()


def total_memory(device: torch.device) -> int:
    """Bytes of the device, free or not."""
    return int(comfy.model_management.get_total_memory(device))


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar() -> Callable[[int, int, Image.Image | None], None]:
    """The bar of the node that runs: (done, total, an image to show)."""
    bar = comfy.utils.ProgressBar(1)

    def show(done: int, total: int, image: Image.Image | None = None) -> None:
        bar.update_absolute(done, total, None if image is None else ("JPEG", image, PREVIEW))

    return show


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """ComfyUI runs nodes in inference mode, where nothing can be trained."""
    with torch.inference_mode(False):
        yield


# Folders.


def register_folder() -> None:
    """Where Meta-Down files are: models/meta_lora, and where stage 1 writes them."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir, FOLDER)))
    folder_paths.add_model_folder_path(FOLDER, str(output_folder(FOLDER, MADE)))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def meta_down_files() -> list[str]:
    """The names of the files in models/meta_lora."""
    return folder_paths.get_filename_list(FOLDER)


def meta_down_path(name: str) -> Path:
    """Where such a file is."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise UserError(f"models/{FOLDER}/{name} is gone. Press R in ComfyUI to read the folder again.")
    return Path(found)


def output_folder(*parts: str) -> Path:
    """A place under ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory(), *parts)


def plain_name(name: str) -> str:
    """The name, unless it could lead out of the folder it belongs in."""
    if not name or name in (".", "..") or any(letter in name for letter in '/\\:*?"<>|'):
        raise UserError(f"{name!r} is no plain file name: leave out slashes and marks such as : * ?.")
    return name


def numbered_output(subfolder: str, name: str) -> Path:
    """output/<subfolder>/<name>_00001, or the first number that is free."""
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(
        f"{subfolder}/{plain_name(name)}", folder_paths.get_output_directory()
    )
    return Path(folder, f"{stem}_{counter:05}_")


# LoRAs.


def unmatched_keys(model: Any, lora: dict[str, Tensor]) -> list[str]:
    """The keys of a LoRA that ComfyUI's own loader would not use on this MODEL."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), names, log_missing=False)
    used = {key for patch in patches.values() for key in patch.loaded_keys}
    return sorted(lora.keys() - used)


def with_live_adapters(model: Any, attached: Callable[[nn.Module, torch.device], Any]) -> Any:
    """A clone of a MODEL that computes with adapters; they are attached only while the network runs."""
    clone = model.clone()

    def run(executor: Any, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with attached(executor.class_obj, latents.device):
            return executor(latents, *args, **kwargs)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, KEY, run)
    return clone


# A small FLUX, whose widths stock loaders do not know, as ComfyUI's own objects.


class SmallTokenizer(comfy.text_encoders.flux.FluxTokenizer):
    """FLUX's pair with other vocabularies."""

    def __init__(self, small: SmallFlux):
        self.clip_l = SDTokenizer(str(small.clip_words), max_length=small.clip_config["max_position_embeddings"])
        self.t5xxl = SDTokenizer(
            str(small.t5_words),
            pad_with_end=False,
            embedding_size=small.t5_config["d_model"],
            embedding_key="t5xxl",
            tokenizer_class=T5TokenizerFast,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=small.max_tokens,
        )


def small_model(small: SmallFlux, stored: torch.dtype = torch.float32) -> Any:
    """MODEL, computing in float32 whatever its weights are stored in."""
    config = comfy.supported_models.Flux(small.unet_config())
    config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(small.transformer)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def small_clip(small: SmallFlux) -> Any:
    """CLIP."""

    class Target:
        params: dict[str, Any] = {}  # noqa: RUF012  # ComfyUI copies it
        clip = comfy.text_encoders.flux.FluxClipModel

        @staticmethod
        def tokenizer(**_options: Any) -> SmallTokenizer:
            return SmallTokenizer(small)

    options = {"clip_l_model_config": small.clip_config, "t5xxl_model_config": small.t5_config, "dtype": torch.float32}
    clip = comfy.sd.CLIP(Target, model_options=options)
    encoder = clip.cond_stage_model.clip_l
    encoder.special_tokens = small.clip_special_tokens
    vocabulary, width = small.clip[f"{CLIP_EMBEDDINGS}.weight"].shape  # ComfyUI's class knows only CLIP's own
    encoder.transformer.set_input_embeddings(encoder.operations.Embedding(vocabulary, width))
    encoder.transformer.load_state_dict(small.clip)
    clip.cond_stage_model.t5xxl.transformer.load_state_dict(small.t5)
    return clip


def small_vae(small: SmallFlux) -> Any:
    """VAE."""
    vae = comfy.sd.VAE(sd=small.autoencoder, config={"params": small.autoencoder_params}, dtype=torch.float32)
    vae.latent_channels = small.latent_channels
    for module in vae.first_stage_model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = small.norm_groups
    return vae
