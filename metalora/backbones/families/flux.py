"""FLUX.1: T5's tokens and CLIP's one vector of a prompt, and guidance as an input of the network.

A LoRA's sites in it have two names: diffusers', which sites carry, and Black Forest Labs', as ComfyUI has the layers.
These fuse the layers that read the same input (q, k, v and, in single blocks, the first layer of the MLP) into one
matrix; there a site is a slice of its output rows.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ...method.adapter import Site
from ...method.flow import shifted
from ..architecture import HEAD, Architecture
from ..family import Family, linear_shift, pack, positions, unpack
from ..protocol import Prompt

FOR_CLIP = 77  # tokens
# Of FlowMatchEulerDiscreteScheduler; not read from it, since its file imports scipy.
SCHEDULER_DEFAULTS = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
AXES = (16, 56, 56)  # numbers of a head that turn with the index, the row and the column


@dataclass(frozen=True)
class FluxShape(Architecture):
    """What distinguishes one FLUX architecture from another: enough to know every layer's name and shape."""

    width: int
    double_blocks: int
    single_blocks: int
    in_channels: int  # of a token: 4 times the latents' channels
    joint_dim: int  # of T5's embeddings
    pooled_dim: int  # of CLIP's
    guidance: bool  # whether guidance is embedded: dev has it, schnell has not
    mlp_ratio: int = 4

    @property
    def name(self) -> str:
        if (self.width, self.double_blocks, self.single_blocks) == (3072, 19, 38):
            return "flux.1-dev" if self.guidance else "flux.1-schnell"
        return f"flux-{self.width}x{self.double_blocks}x{self.single_blocks}{'' if self.guidance else '-schnell'}"

    @property
    def places(self) -> tuple[Site, ...]:
        return layers_in_blocks(self, fused=False)

    @property
    def fused(self) -> tuple[Site, ...]:
        return layers_in_blocks(self, fused=True)

    @property
    def metadata(self) -> dict[str, str]:
        return {"shape": json.dumps(asdict(self))}

    @property
    def max_tokens(self) -> int:
        """T5's tokens that a FLUX was trained with: 512 for dev, 256 for schnell."""
        return 512 if self.guidance else 256


class Layer(NamedTuple):
    """One linear layer of a block in both key formats; sizes in units of the model's width."""

    name: str  # diffusers, inside the block
    fused: str  # Black Forest Labs, inside the block
    reads: int
    writes: int
    start: int | None = None  # of the slice of a fused layer


def double_block(mlp: int) -> list[Layer]:
    """The linear layers of a double block, the image's stream before the text's."""
    layers = []
    for stream, norm, inputs, out, ff in (
        ("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", "ff"),
        ("txt", "norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context"),
    ):
        layers += [
            Layer(f"{norm}.linear", f"{stream}_mod.lin", 1, 6),
            *(Layer(f"attn.{q}", f"{stream}_attn.qkv", 1, 1, start) for start, q in enumerate(inputs)),
            Layer(f"attn.{out}", f"{stream}_attn.proj", 1, 1),
            Layer(f"{ff}.net.0.proj", f"{stream}_mlp.0", 1, mlp),
            Layer(f"{ff}.net.2", f"{stream}_mlp.2", mlp, 1),
        ]
    return layers


def single_block(mlp: int) -> list[Layer]:
    """The linear layers of a single block. proj_out reads attention and MLP together, so it is no attention layer."""
    return [
        Layer("norm.linear", "modulation.lin", 1, 3),
        *(Layer(f"attn.{q}", "linear1", 1, 1, start) for start, q in enumerate(("to_q", "to_k", "to_v"))),
        Layer("proj_mlp", "linear1", 1, mlp, 3),
        Layer("proj_out", "linear2", 1 + mlp, 1),
    ]


@cache
def layers_in_blocks(shape: FluxShape, fused: bool) -> tuple[Site, ...]:
    """All sites in the order of the blocks: modules as diffusers names them, or as Black Forest Labs fuses them."""
    found = []
    for blocks, bfl_blocks, count, layers in (
        ("transformer_blocks", "double_blocks", shape.double_blocks, double_block(shape.mlp_ratio)),
        ("single_transformer_blocks", "single_blocks", shape.single_blocks, single_block(shape.mlp_ratio)),
    ):
        for block in range(count):
            for layer in layers:
                name = f"{blocks}.{block}.{layer.name}"
                module, start = name, None
                if fused:
                    module = f"{bfl_blocks}.{block}.{layer.fused}"
                    start = None if layer.start is None else layer.start * shape.width
                found.append(Site(name, module, layer.reads * shape.width, layer.writes * shape.width, start))
    return tuple(found)


class Flux(Family):
    """dev and schnell."""

    name = "flux.1"
    pipeline, transformer, since = "FluxPipeline", "FluxTransformer2DModel", "0.35"
    padded, ends = True, 1
    guided_from = math.inf
    encoder_files: ClassVar[Mapping[str, str]] = {"clip_l": "text_encoder", "t5xxl": "text_encoder_2"}
    unasked = ("peft", "scipy", "bitsandbytes", "torchvision")
    unasked_by_models = ("transformers",)

    def known(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The hub wants a login for them."""
        shape = self.architecture(config)
        return {
            "model_index.json": {
                "_class_name": self.pipeline,
                "transformer": ["diffusers", self.transformer],
                "vae": ["diffusers", "AutoencoderKL"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "text_encoder_2": ["transformers", "T5EncoderModel"],
                "tokenizer_2": ["transformers", "T5TokenizerFast"],
            },
            "transformer/config.json": transformer_config(shape),
            "vae/config.json": autoencoder_config((128, 256, 512, 512), 2, 16),
            "text_encoder/config.json": clip_config(49408, 768, 3072, 12, 77),
            "text_encoder_2/config.json": t5_config(32128, 4096, 10240, 24, 64, 64),
            "scheduler/scheduler_config.json": scheduler_config(shape),
        }

    def encoders(self, components: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Themselves: to import the whole pipeline takes longer than to encode a prompt."""
        return dict(components)

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """T5's tokens, filled up, and CLIP's pooled output, as FluxPipeline makes them."""
        t5, clip = encoders["text_encoder_2"], encoders["text_encoder"]
        tokens = t5(_ids(encoders["tokenizer_2"], text, max_tokens, t5.device))[0]
        pooled = clip(_ids(encoders["tokenizer"], text, FOR_CLIP, clip.device)).pooler_output
        return {"tokens": tokens, "pooled": pooled}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float | Tensor) -> Tensor:
        """All of the text is at the origin; guidance may be each sample's own [b]."""
        b, _, h, w = latents.shape
        device = latents.device
        predicted = network(
            hidden_states=pack(latents),
            timestep=t,
            guidance=guidance * torch.ones(b, device=device) if network.config.guidance_embeds else None,
            encoder_hidden_states=prompt["tokens"],
            pooled_projections=prompt["pooled"],
            txt_ids=torch.zeros(prompt["tokens"].shape[1], 3, device=device),
            img_ids=positions(h // 2, w // 2).to(device),
            return_dict=False,
        )[0]
        return unpack(predicted.float(), h, w)

    def schedule(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> Tensor:
        """Shifted the more the larger the image; without the scheduler's class, which loads scipy."""
        return schedule(steps, tokens, config)

    def longest(self, config: Mapping[str, Any], tokenizer_settings: Mapping[str, Any]) -> int:
        """What the tokenizer says, but at most what FLUX was trained with."""
        return min(self.architecture(config).max_tokens, tokenizer_settings.get("model_max_length", 512))

    def architecture(self, config: Mapping[str, Any]) -> FluxShape:
        """By its sizes: FLUX.1's layers have other names in other programs."""
        return FluxShape(
            width=config["num_attention_heads"] * config["attention_head_dim"],
            double_blocks=config["num_layers"],
            single_blocks=config["num_single_layers"],
            in_channels=config["in_channels"],
            joint_dim=config["joint_attention_dim"],
            pooled_dim=config["pooled_projection_dim"],
            guidance=config["guidance_embeds"],
        )


FLUX = Flux()


def schedule(steps: int, tokens: int, config: Mapping[str, Any]) -> Tensor:
    """Times [steps + 1] from 1 to 0, shifted towards noise the more the larger the image (BFL's `get_schedule`)."""
    times = torch.linspace(1, 1 / steps, steps)
    times = shifted(
        times, math.exp(linear_shift(config, tokens)) if config["use_dynamic_shifting"] else config["shift"]
    )
    return torch.cat([times, torch.zeros(1)])


def _ids(tokenizer: Any, prompt: str, length: int, device: torch.device) -> Tensor:
    return tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids.to(device)


def transformer_config(shape: FluxShape) -> dict[str, Any]:
    """For FluxTransformer2DModel."""
    return {
        "in_channels": shape.in_channels,
        "num_layers": shape.double_blocks,
        "num_single_layers": shape.single_blocks,
        "attention_head_dim": HEAD,
        "num_attention_heads": shape.width // HEAD,
        "joint_attention_dim": shape.joint_dim,
        "pooled_projection_dim": shape.pooled_dim,
        "guidance_embeds": shape.guidance,
        "axes_dims_rope": AXES,
    }


def autoencoder_config(channels: tuple[int, ...], layers: int, latent_channels: int) -> dict[str, Any]:
    """For AutoencoderKL. FLUX.1's own is (128, 256, 512, 512), 2, 16."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "norm_num_groups": 32,
        "sample_size": 1024,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def scheduler_config(shape: FluxShape) -> dict[str, Any]:
    """For FlowMatchEulerDiscreteScheduler: dev shifts its times with the size of the image, schnell does not."""
    own = {"shift": 3.0 if shape.guidance else 1.0, "use_dynamic_shifting": shape.guidance}
    return {**SCHEDULER_DEFAULTS, **own}


def clip_config(vocabulary: int, width: int, hidden: int, layers: int, positions: int) -> dict[str, Any]:
    """For CLIPTextConfig. The end of a text is the vocabulary's last word, and so is the padding."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": hidden,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": positions,
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def t5_config(vocabulary: int, width: int, hidden: int, layers: int, heads: int, head: int) -> dict[str, Any]:
    """For T5Config, of the 1.1 kind: a gated GELU, and embeddings that serve the encoder alone."""
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": head,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
