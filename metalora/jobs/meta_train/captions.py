"""Captions with words left out by chance: what a caption does not say, the heads have to."""

import torch

from ...config_meta_train import MetaTrainConfig
from ...method.flow import generator_of


def shortened(caption: str, config: MetaTrainConfig, *key: object) -> str:
    """The caption without some of its phrases, which commas part; the first stays, so a plain caption stays whole."""
    first, *phrases = caption.split(", ")
    tosses = torch.rand(len(phrases), generator=generator_of(config.seed, "caption", *key)).tolist()
    words = set(config.identity_words.split())
    kept = [
        phrase
        for phrase, toss in zip(phrases, tosses, strict=True)
        if toss >= (config.identity_dropout if words & set(phrase.split()) else config.phrase_dropout)
    ]
    return ", ".join([first, *kept])
