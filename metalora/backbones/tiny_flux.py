"""A FLUX of 2 + 2 blocks with random weights: the real classes and every kind of layer, in seconds and without files.

It has learned nothing. Its weights are drawn so that every input matters: outputs, gates and attention are of order 1.
Its tokenizers are of the classes that FLUX's own have, and any prompt works.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import HEAD
from .families.flux import (
    FLUX,
    FluxShape,
    autoencoder_config,
    clip_config,
    scheduler_config,
    t5_config,
    transformer_config,
)

SHAPE = FluxShape(
    width=HEAD, double_blocks=2, single_blocks=2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True
)
LATENTS = 4.0  # what the encoder's last layer is multiplied by, so that scaled latents are of order 1
WORDS = (
    *("a", "an", "the", "of", "in", "on", "at", "with", "and", "photo", "portrait", "picture", "person", "man"),
    *("woman", "cat", "dog", "face", "smiling", "wearing", "red", "blue"),
)
START, END = "<|startoftext|>", "<|endoftext|>"
SPACE = "\u2581"  # how SentencePiece writes a space


class TinyFlux:
    """`pipeline.Parts` made from a seed: about 10 MB, the same in every run and on every machine."""

    family = FLUX
    name = "tiny"
    settings: Mapping[str, Any] = {}
    architecture = SHAPE
    max_tokens = 64

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.scheduler_config = scheduler_config(SHAPE)

    def tokenizer(self) -> Any:
        """Of letters."""
        return t5_tokenizer(self.max_tokens)

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> dict[str, Any]:
        """CLIP of 2 layers on bytes, T5 of 2 layers on letters."""
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        clip_words, t5_words = clip_tokenizer(), self.tokenizer()
        clip = CLIPTextConfig(**clip_config(len(clip_words), SHAPE.pooled_dim, 64, 2, 77))
        t5 = T5Config(**t5_config(len(t5_words), SHAPE.joint_dim, 128, 2, 4, 16))
        return {
            "tokenizer": clip_words,
            "text_encoder": self._drawn(1, device, dtype, CLIPTextModel, clip),
            "tokenizer_2": t5_words,
            "text_encoder_2": self._drawn(2, device, dtype, T5EncoderModel, t5),
        }

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """8 x 8 pixels to 16 numbers, like FLUX's own."""
        from diffusers import AutoencoderKL

        config = autoencoder_config((32, 32, 32, 64), 1, SHAPE.in_channels // 4)
        vae = self._drawn(3, device, dtype, AutoencoderKL, **config)
        with torch.no_grad():
            vae.encoder.conv_out.weight *= LATENTS
        return vae

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """One attention head wide, two double and two single blocks."""
        from diffusers import FluxTransformer2DModel

        return self._drawn(4, device, dtype, FluxTransformer2DModel, **transformer_config(SHAPE))

    def fingerprint(self, part: str) -> str:
        """sha256 of the part's weights: they take less time to draw than to explain another rule."""
        sha = hashlib.sha256()
        for model in self._models(part):
            for name, weight in sorted(model.state_dict().items()):
                sha.update(name.encode() + weight.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def weights_bytes(self) -> dict[str, int]:
        """In float32, as they are drawn."""
        return {
            part: sum(4 * weight.numel() for model in self._models(part) for weight in model.parameters())
            for part in ("text_encoders", "autoencoder", "transformer")
        }

    def missing(self) -> list[str]:
        """Nothing ever is."""
        return []

    def _models(self, part: str) -> list[nn.Module]:
        if part == "text_encoders":
            made = self.text_encoders("cpu", torch.float32)
            return [made["text_encoder"], made["text_encoder_2"]]
        build = {"autoencoder": self.autoencoder, "transformer": self.transformer}[part]
        return [build("cpu", torch.float32)]

    @torch.no_grad()
    def _drawn(
        self, stream: int, device: torch.device | str, dtype: torch.dtype, build: Any, *args: Any, **settings: Any
    ) -> Any:
        """A model with weights from our own generator: what libraries draw differs between their versions."""
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
            model = build(*args, **settings).eval()
        generator = torch.Generator().manual_seed(self.seed * 8 + stream)

        def draw(weight: Tensor, deviation: float) -> None:
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)

        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                draw(module.weight, module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    draw(module.bias, 0.1)
            elif isinstance(module, nn.Embedding):
                draw(module.weight, 1.0)
        return nn.Module.to(model, device, dtype)  # diffusers' own `to` warns about layers that no FLUX has


def clip_tokenizer(merges: Sequence[tuple[str, str]] = ()) -> Any:
    """CLIPTokenizerFast of these merges, spelling all else in bytes; the last two of its words start and end a text."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

    letters = sorted(ByteLevel.alphabet())  # the 256 that bytes are written with, in an order of our own
    merged = ("".join(pair) for pair in merges)
    words = list(dict.fromkeys([*letters, *(letter + "</w>" for letter in letters), *merged, START, END]))
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, "vocab.json", {word: index for index, word in enumerate(words)})
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        Path(folder, "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
        _write(folder, "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special})
        return CLIPTokenizerFast.from_pretrained(folder)


def t5_tokenizer(max_tokens: int, words: Sequence[str] = WORDS) -> Any:
    """T5TokenizerFast that knows these words and the letters of Latin-1; any other letter is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast  # type: ignore[attr-defined]

    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (SPACE, -2.0)]
    scored += [(SPACE + word, -3.0) for word in words] + [(letter, -4.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=False))
    spaced = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaced])
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder, "tokenizer.json")))
        special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        settings = {"tokenizer_class": "T5TokenizerFast", "extra_ids": 0, "model_max_length": max_tokens}
        _write(folder, "tokenizer_config.json", {**settings, **special})
        return T5TokenizerFast.from_pretrained(folder)


def _write(folder: str, name: str, content: dict[str, Any]) -> None:
    Path(folder, name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
