"""The miniature's text side: tokenizers that know its vocabulary by the word, and small encoders of FLUX's two classes.

Other words are spelled in letters, so any prompt works.
"""

from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from metalora.backbones import tiny_flux
from metalora.backbones.families.flux import clip_config, t5_config

from .captions import VOCABULARY

T5_TOKENS = 32  # the longest caption has 29; each one more costs a training a hundredth of its time
CLIP_TOKENS = 77  # what every FLUX pipeline pads CLIP's to
WIDTH = 128  # of both encoders' outputs


class TextEncoders(nn.Module):
    """(T5's ids, CLIP's ids) of n captions -> (tokens [n, T5_TOKENS, WIDTH] of T5, pooled [n, WIDTH] of CLIP)."""

    def __init__(self):
        super().__init__()
        self.clip_tokenizer, self.t5_tokenizer = clip_tokenizer(), t5_tokenizer()
        self.clip = CLIPTextModel(CLIPTextConfig(**clip_config(len(self.clip_tokenizer), WIDTH, 256, 2, CLIP_TOKENS)))
        self.t5 = T5EncoderModel(T5Config(**t5_config(len(self.t5_tokenizer), WIDTH, 256, 2, 4, 32), dropout_rate=0.0))

    def forward(self, t5_ids: Tensor, clip_ids: Tensor) -> tuple[Tensor, Tensor]:
        device = next(self.parameters()).device
        return self.t5(t5_ids.to(device))[0], self.clip(clip_ids.to(device)).pooler_output

    def ids(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """What `forward` takes."""
        # CLIP looks back only, so what follows the end cannot matter, and need not be there.
        pairs = ((self.t5_tokenizer, T5_TOKENS, "max_length"), (self.clip_tokenizer, CLIP_TOKENS, "longest"))
        t5_ids, clip_ids = (_ids(tokenizer, captions, length, padding) for tokenizer, length, padding in pairs)
        return t5_ids, clip_ids


def _ids(tokenizer, captions: list[str], length: int, padding: str) -> Tensor:
    padded = tokenizer(captions, padding=padding, max_length=length, truncation=True, return_tensors="pt")
    return padded.input_ids.to(torch.long)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIPTokenizer whose merges make every word of the vocabulary one token."""
    words = [part for word in VOCABULARY for part in word.replace("-", " - ").split()]  # CLIP splits at hyphens
    return tiny_flux.clip_tokenizer(merges_of(words))


def merges_of(words: list[str]) -> list[tuple[str, str]]:
    """Byte pair encoding, learned until every word is one token.

    The tokenizers package breaks ties differently in each process; here the later pair of the alphabet wins, so that
    weights fit the tokenizer of every run.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in dict.fromkeys(words)]
    merges = []
    while counts := Counter(pair for parts in spelled for pair in pairwise(parts)):
        first, second = best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for parts in spelled:
            while best in (pairs := list(pairwise(parts))):
                at = pairs.index(best)
                parts[at : at + 2] = [first + second]
    return merges


def t5_tokenizer() -> T5TokenizerFast:
    """T5TokenizerFast that knows the vocabulary's words and, for all else, the letters of Latin-1."""
    return tiny_flux.t5_tokenizer(T5_TOKENS, VOCABULARY)
