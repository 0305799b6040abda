"""Tiny random models of the families' real classes, made from a seed, in folders that diffusers opens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from comfy_files import save_pipeline
from torch import Tensor, nn
from transformers import AutoTokenizer

from metalora.backbones.families import FAMILIES
from metalora.backbones.families.flux import clip_config, t5_config
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.protocol import Prompt
from metalora.backbones.tiny_flux import TinyFlux, clip_tokenizer, t5_tokenizer
from metalora.jobs import run
from metalora.method.adapter import Adapters, new_adapters, random_meta_down

SIZE, STEPS, SEED, GUIDANCE, PROMPT = (96, 64), 3, 11, 3.5, "a photo of a woman on a beach"
DRAWN = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.Embedding)
SCHEDULER = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
TURN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEMPLATE = TURN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def tokenizer(folder: Path, longest: int = 2048) -> Any:
    """A Qwen2 tokenizer that spells every text in bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": longest, "chat_template": TEMPLATE, **special}
    settings["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def qwen3(width: int, layers: int, vocabulary: int = 259) -> dict[str, Any]:
    """The settings of a Qwen3 of this width."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "max_position_embeddings": 2048,
        "pad_token_id": 256,
        **heads,
    }


def vision(width: int) -> dict[str, Any]:
    """The part of a Qwen-VL that looks at images, which no prompt of ours reaches."""
    return {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}


def drawn(build: Callable[[], nn.Module], seed: int) -> Any:
    """A model whose weights are of a size that lets every input matter."""
    with torch.random.fork_rng(devices=[]):
        model = build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DRAWN):
                deviation = 1.0 if isinstance(module, nn.Embedding) else module.weight[0].numel() ** -0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * deviation)
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "pad_token", "scale_shift_table")):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def kl(latents: int = 16) -> nn.Module:
    return diffusers.AutoencoderKL(
        **{"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
        **{"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
        **{"latent_channels": latents, "scaling_factor": 0.3611, "shift_factor": 0.1159},
        **{"use_quant_conv": False, "use_post_quant_conv": False},
    )


def qwen_vae() -> nn.Module:
    return diffusers.AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)


def flux2_vae() -> nn.Module:
    vae = diffusers.AutoencoderKLFlux2(
        **{"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 32}
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 128))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 128))
    return vae


def klein() -> dict[str, Any]:
    text = transformers.Qwen3Config(**qwen3(16, 27))
    return {
        "transformer": lambda: diffusers.Flux2Transformer2DModel(
            **{"in_channels": 128, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32},
            **{"num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": (8, 8, 8, 8)},
            guidance_embeds=False,
        ),
        "vae": flux2_vae,
        "text_encoder": lambda: transformers.Qwen3ForCausalLM(text),
    }


def z_image() -> dict[str, Any]:
    text = transformers.Qwen3Config(**qwen3(40, 3))
    return {
        "transformer": lambda: diffusers.ZImageTransformer2DModel(
            **{"dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 40},
            **{"axes_dims": [8, 12, 12], "axes_lens": [1024, 512, 512]},
        ),
        "vae": kl,
        "text_encoder": lambda: transformers.Qwen3Model(text),
    }


def qwen_image() -> dict[str, Any]:
    text = transformers.Qwen2_5_VLConfig(
        text_config={**qwen3(40, 2), "head_dim": 20, "rope_scaling": {"type": "mrope", "mrope_section": [2, 4, 4]}},
        vision_config={**vision(40), "fullatt_block_indexes": [0]},
    )
    return {
        "transformer": lambda: diffusers.QwenImageTransformer2DModel(
            **{"in_channels": 64, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2},
            **{"joint_attention_dim": 40, "axes_dims_rope": (8, 12, 12)},
        ),
        "vae": qwen_vae,
        "text_encoder": lambda: transformers.Qwen2_5_VLForConditionalGeneration(text),
    }


def krea2() -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "mrope_interleaved": True, "rope_theta": 1e4}
    text = transformers.Qwen3VLConfig(
        text_config={**qwen3(32, 4), "rope_scaling": rope}, vision_config={**vision(32), "deepstack_visual_indexes": []}
    )
    return {
        "transformer": lambda: diffusers.Krea2Transformer2DModel(
            **{"in_channels": 64, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4},
            **{"num_key_value_heads": 2, "intermediate_size": 256, "text_hidden_dim": 32, "num_text_layers": 3},
            **{"text_num_attention_heads": 2, "text_num_key_value_heads": 2, "text_intermediate_size": 128},
            axes_dims_rope=(4, 6, 6),
        ),
        "vae": qwen_vae,
        "text_encoder": lambda: transformers.Qwen3VLModel(text),
    }


def sd3() -> dict[str, Any]:
    clip = transformers.CLIPTextConfig(**clip_config(514, 16, 32, 2, 77))
    t5 = transformers.T5Config(**t5_config(len(t5_tokenizer(256)), 40, 64, 2, 4, 8))
    return {
        "transformer": lambda: diffusers.SD3Transformer2DModel(
            **{"sample_size": 16, "in_channels": 16, "num_layers": 2, "attention_head_dim": 64},
            **{"num_attention_heads": 2, "joint_attention_dim": 40, "caption_projection_dim": 128},
            **{"pooled_projection_dim": 32, "pos_embed_max_size": 16, "dual_attention_layers": (0,)},
            qk_norm="rms_norm",
        ),
        "vae": kl,
        "text_encoder": lambda: transformers.CLIPTextModelWithProjection(clip),
        "text_encoder_2": lambda: transformers.CLIPTextModelWithProjection(clip),
        "text_encoder_3": lambda: transformers.T5EncoderModel(t5),
    }


PIPELINES = {
    "flux.2-klein": ("Flux2KleinPipeline", klein, {}),
    "z-image": ("ZImagePipeline", z_image, {}),
    "qwen-image": ("QwenImagePipeline", qwen_image, {}),
    "krea-2": ("Krea2Pipeline", krea2, {"text_encoder_select_layers": (0, 2, 3)}),
    "sd3.5": ("StableDiffusion3Pipeline", sd3, {}),
}


MODELS = {  # what a family takes of transformers that is younger than the oldest one we run with
    "flux.2-klein": "Qwen3Config",
    "z-image": "Qwen3Config",
    "qwen-image": "Qwen2_5_VLForConditionalGeneration",
    "krea-2": "Qwen3VLConfig",
}


def skip_without(family: str) -> None:
    """Skip a test of a family that the installed diffusers or transformers do not have."""
    since = next(one.since for one in FAMILIES if one.name == family)
    if [int(part) for part in diffusers.__version__.split(".")[:2]] < [int(part) for part in since.split(".")]:
        pytest.skip(f"{family} needs diffusers {since}, and {diffusers.__version__} is installed")
    if not hasattr(transformers, MODELS.get(family, "PreTrainedModel")):
        pytest.skip(f"{family} needs {MODELS[family]} of transformers, which {transformers.__version__} lacks")


class Bases:
    """Tiny bases, each made in a folder of its family's name when it is first asked for."""

    def __init__(self, root: Path):
        self.root = root

    def __getitem__(self, family: str) -> Path:
        folder = self.root / family
        return folder if folder.is_dir() else save_tiny_base(family, folder)


def save_tiny_base(family: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """The folder of a tiny pipeline; settings are the pipeline's own, such as is_distilled."""
    if family == "flux.1":
        return save_pipeline(TinyFlux(), folder)
    skip_without(family)
    name, builders, own = PIPELINES[family]
    models = {part: drawn(build, seed * 8 + index) for index, (part, build) in enumerate(builders().items())}
    if family == "sd3.5":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        words = {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(), "tokenizer_3": t5_tokenizer(256)}
    else:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER)
        words = {"tokenizer": tokenizer(folder.with_name(folder.name + "-tokenizer"))}
    pipeline = getattr(diffusers, name)(scheduler=scheduler, **words, **models, **{**own, **settings})
    pipeline.save_pretrained(folder)
    return folder


def prompts_of(base: PipelineBackbone, *texts: str) -> list[Prompt]:
    with base.text_encoders() as encode:
        return [encode(text) for text in texts]


def our_image(base: PipelineBackbone, adapters: Adapters | None = None, guidance: float = GUIDANCE) -> Tensor:
    (prompt,) = prompts_of(base, PROMPT)
    with base.denoiser() as denoiser, adapters.attached(denoiser.network) if adapters else torch.no_grad():
        latents = run(denoiser.sample(prompt, SIZE, STEPS, guidance, [SEED]))
    with base.autoencoder() as autoencoder:
        return autoencoder.decode(latents[0])


def strong_adapters(base: PipelineBackbone, meta: bool = True, strength: float = 0.1) -> Adapters:
    """Far from the base, so that agreement means something."""
    generator, sites = torch.Generator().manual_seed(5), base.sites("all")
    down = random_meta_down(sites, 8, generator) if meta else None
    adapters = new_adapters(sites, 2, generator, meta_down=down, scale=0.8)
    for up in adapters.parameters(("up",)):
        up.data = torch.randn(up.shape, generator=generator) * strength
    return adapters
