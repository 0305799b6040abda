"""What ComfyUI's MODEL, CLIP and VAE compute, through the calls of its own sampler; nothing here changes them."""

from pathlib import Path
from typing import Any

import comfy.ldm.flux.model
import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import comfy.sd
import comfy.text_encoders.flux
import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from ...metalora.backbones.families.flux import FluxShape
from ...metalora.config import UserError
from .training import differentiable_attention

COMPILED = "torch.compile"  # the key of ComfyUI's own wrapper for compiled networks
GUIDANCE = (
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_calc_cond_batch_function",
)
DISTILLED = ("turbo", "distill", "lightning", "schnell", "hyper")
TOKENS = 512  # of a prompt, where memory is estimated for a base whose prompts have lengths of their own


def network_of(model: Any) -> nn.Module:
    """The network in a MODEL, also where another node has put a compiled one in its place."""
    network = model.get_model_object("diffusion_model")
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def uncompiled(model: Any) -> Any:
    """A clone of a MODEL without compiled parts: it computes the same, and hooks on layers are seen."""
    clone = model.clone()
    for name, part in list(clone.object_patches.items()):
        if isinstance(part, OptimizedModule):
            del clone.object_patches[name]
    clone.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, COMPILED)
    return clone


def refuse_guidance_patches(model: Any) -> None:
    """What changes images by other rules than the network's own cannot be trained on."""
    for kind in GUIDANCE:
        patches = model.model_options.get(kind) or []
        for patch in patches if isinstance(patches, list) else [patches]:
            maker = getattr(patch, "__qualname__", type(patch).__qualname__).split(".")[0]
            raise UserError(
                f"This MODEL has a guidance patch on it ({maker}, a {kind}), which changes what the sampler does with "
                "the network's output: there is nothing to train on it. Connect `model` from before that node, and put "
                "the patch on the trained model."
            )


def compute_dtype(model: Any) -> torch.dtype:
    """What the network computes in, which fp8 weights are cast to."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def weights_of(model: Any, part: str) -> dict[str, Tensor]:
    """The tensors that make up a part: "transformer" of a MODEL, "text_encoders" of a CLIP, "autoencoder" of a VAE.

    They are the part's own, also while the sampler has a LoRA of another clone in them and keeps them aside.
    """
    patcher, prefix = (model, "diffusion_model.") if part == "transformer" else (model.patcher, "")
    if part == "transformer":
        tensors = dict(network_of(model).named_parameters())
    else:
        tensors = (model.cond_stage_model if part == "text_encoders" else model.first_stage_model).state_dict()
    aside = {name: kept.weight for name in tensors if (kept := patcher.backup.get(prefix + name)) is not None}
    return {**tensors, **aside}


def patches_of(patcher: Any) -> str:
    """Names the LoRAs that are on a MODEL or CLIP already: new for every change of them."""
    return str(patcher.patches_uuid) if patcher.patches else ""


def prompt_tokens(clip: Any, architecture: Any) -> int:
    """How many tokens a prompt of a FLUX.1 is padded to: as it was trained, or as a smaller one's loader says."""
    if not isinstance(architecture, FluxShape):
        return TOKENS
    if not isinstance(clip.tokenizer, comfy.text_encoders.flux.FluxTokenizer):
        raise UserError(
            f"This MODEL is a FLUX.1, and this CLIP a {type(clip.cond_stage_model).__name__}. "
            "Load clip_l and t5xxl with DualCLIPLoader, type flux."
        )
    known = architecture.name in ("flux.1-dev", "flux.1-schnell")
    return architecture.max_tokens if known else clip.tokenizer.t5xxl.min_length


def encode_prompt(clip: Any, text: str, flux_tokens: int | None) -> dict[str, Tensor]:
    """A conditioning's tensors; brackets in a caption are letters, not weights."""
    options = {"tokenizer_options": {"t5xxl_min_length": flux_tokens}} if flux_tokens else {}
    try:
        tokenized = clip.tokenize(text, disable_weights=True, **options)
    except TypeError:  # a chat model's tokenizer knows no weights, and says so itself to the one below it
        tokenized = clip.tokenize(text, **options)
    made = clip.encode_from_tokens(tokenized, return_dict=True)
    made["cross_attn"] = made.pop("cond")
    return {name: part for name, part in made.items() if isinstance(part, Tensor)}


class Applied:
    """A MODEL that is on its device as one function of latents, with all that other nodes have put on it."""

    def __init__(self, model: Any):
        self.model, self.base = model, model.model
        self.frames = self.base.latent_format.latent_dimensions == 3
        self.flow = isinstance(self.base.model_sampling, comfy.model_sampling.CONST)
        options = dict(model.model_options.get("transformer_options", {}))
        wrappers = comfy.patcher_extension.copy_nested_dicts(options.get("wrappers", {}))
        options["wrappers"] = comfy.patcher_extension.merge_nested_dicts(wrappers, model.wrappers)
        options["optimized_attention_override"] = differentiable_attention
        self.options = options

    def velocity(self, latents: Tensor, t: Tensor, prompt: dict[str, Tensor], guidance: float) -> Tensor:
        """d x / dt of latents x = (1 - t) clean + t noise, [b, c, h, w] in float32.

        Another noise schedule has its latents scaled, x / (1 - t) with noise of t / (1 - t). What ComfyUI makes of the
        network's output is always the clean latents, so that the velocity is (x - clean) / t for every base.
        """
        one = t.float().view(-1, 1, 1, 1)
        scale, sigma = (1.0, t.float()) if self.flow else (1 - one, t.float() / (1 - t.float()))
        x = latents.float() / scale
        clean = self.denoised(x.unsqueeze(2) if self.frames else x, sigma, prompt, guidance)
        return (latents.float() - (clean.squeeze(2) if self.frames else clean)) / one

    def denoised(self, x: Tensor, sigma: Tensor, prompt: dict[str, Tensor], guidance: float) -> Tensor:
        """As the sampler has it: the conditioning's parts, made for these latents, and every patch on the way."""
        cond: dict[str, Any] = {"guidance": guidance, "model_conds": {}, "pooled_output": None}  # 0.3.64's Chroma asks
        cond |= prompt
        made = comfy.samplers.encode_model_conds(self.base.extra_conds, [cond], x, x.device, "positive")
        parts = made[0]["model_conds"].items()
        conds = {name: part.process_cond(batch_size=len(x), device=x.device, area=None).cond for name, part in parts}
        wrapper = self.model.model_options.get("model_function_wrapper")
        given = {**conds, "transformer_options": self.options}
        if wrapper is not None:
            batch = {"input": x, "timestep": sigma, "c": given, "cond_or_uncond": [0] * len(x)}
            return wrapper(self.base.apply_model, batch).float()
        return self.base.apply_model(x, sigma, **given).float()

    def times(self, steps: int) -> Tensor:
        """[steps + 1] from 1 to 0, as ComfyUI's simple scheduler has them."""
        sigmas = comfy.samplers.calculate_sigmas(self.base.model_sampling, "simple", steps)
        return sigmas if self.flow else sigmas / (1 + sigmas)


def latents_in(model: Any, latents: Tensor) -> Tensor:
    """What a VAE makes [b, c, (1,) h, w] -> what the network takes [b, c, h, w]."""
    taken = model.model.process_latent_in(latents)
    return taken.squeeze(2) if taken.ndim == 5 else taken


def latents_out(model: Any, latents: Tensor) -> Tensor:
    """The inverse."""
    frames = model.model.latent_format.latent_dimensions == 3
    return model.model.process_latent_out(latents.unsqueeze(2) if frames else latents)


def check_vae(model: Any, vae: Any) -> None:
    """Refuse a VAE whose latents are not this MODEL's."""
    known = model.model.latent_format
    if (vae.latent_channels, vae.latent_dim) == (known.latent_channels, known.latent_dimensions):
        return
    raise UserError(
        f"This VAE makes latents of {vae.latent_channels} channels in {vae.latent_dim} dimensions, but this MODEL, a "
        f"{type(model.model.model_config).__name__}, takes {known.latent_channels} in {known.latent_dimensions}. Load "
        "the VAE that belongs to the model."
    )


def cell_of(vae: Any) -> int:
    """Pixels of a side of what the network sees as one: sides of images are multiples of it."""
    return max(16, vae.spacial_compression_encode())


def unmatched_keys(model: Any, lora: dict[str, Tensor]) -> list[str]:
    """The keys of a LoRA that ComfyUI's own loader would not use on this MODEL."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), names, log_missing=False)
    used = {key for patch in patches.values() for key in patch.loaded_keys}
    return sorted(lora.keys() - used)


def with_lora(model: Any, lora: dict[str, Tensor]) -> Any:
    """A clone of a MODEL that wears a LoRA: what the stock loader makes of its file."""
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def needs_cfg(model: Any) -> bool:
    """Whether images of this MODEL want CFG: not if guidance is built in, nor if its file's name says distilled.

    Weights do not tell a Z-Image-Turbo from a Z-Image. Newer ComfyUIs remember which file a MODEL came from.
    """
    network: Any = network_of(model)
    if type(network) is comfy.ldm.flux.model.Flux and (network.params.vec_in_dim or network.params.guidance_embed):
        return False
    _, (file, *_), *_ = vars(model).get("cached_patcher_init") or (None, ("",))
    name = Path(str(file)).name.lower()
    return not any(word in name for word in DISTILLED) and ("klein" not in name or "base" in name)
