"""Trainings of a few steps on the tiny FLUX, to compare ways to run it."""

import torch
from torch import Tensor

from metalora.backbones.family import PipelineDenoiser
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import EightBitLinear
from metalora.config import PersonalizeConfig
from metalora.method.adapter import Adapters, fold_all, new_adapters, random_meta_down
from metalora.method.flow import flow_loss, generator_of
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

PROMPT = Prompt(
    tokens=torch.randn(1, 8, 64, generator=generator_of("t")), pooled=torch.randn(1, 32, generator=generator_of("p"))
)


def adapters_of(backbone: PipelineBackbone, trained: bool = True) -> Adapters:
    sites, generator = backbone.sites("all"), generator_of("heads")
    adapters = new_adapters(sites, 1, generator, meta_down=random_meta_down(sites, 16, generator))
    new_optimizer(adapters, PersonalizeConfig())  # freezes what stage 2 does not train
    if trained:
        for up in adapters.parameters(("up",)):
            up.data.normal_(0, 0.2, generator=generator)
    return adapters


def gradients(
    denoiser: PipelineDenoiser, adapters: Adapters, shapes: tuple[tuple[int, int], ...] = ((8, 8),)
) -> Tensor:
    """Of the loss on an image of each shape, all in one vector."""
    found = []
    with adapters.attached(denoiser.network):
        for shape in shapes:
            latents = torch.randn(1, 16, *shape, generator=generator_of("latents", shape))
            flow_loss(denoiser, latents, PROMPT, generator_of("noise")).backward()
            heads = [weight for weight in adapters.parameters(("mid", "up")) if weight.grad is not None]
            found += [weight.grad.flatten().clone() for weight in heads]
            for weight in heads:
                weight.grad.zero_()
    return torch.cat(found)


def lora_trained_on(backbone: PipelineBackbone, in_eight_bits: bool = False) -> Tensor:
    """What a short stage 2 adds to the layers, in one vector."""
    config = PersonalizeConfig(steps=12, learning_rate=3e-3)
    latents = [torch.randn(2, 16, 8, 8, generator=generator_of("crop", crop)) for crop in range(2)]
    adapters = adapters_of(backbone, trained=False)
    with backbone.denoiser() as denoiser, adapters.attached(denoiser.network):
        for module in denoiser.network.modules():
            if isinstance(module, EightBitLinear):
                module.eight_bit_products = in_eight_bits
        optimizer = new_optimizer(adapters, config)
        list(personalize(denoiser, adapters, optimizer, [Person(TrainingImages(latents, PROMPT), 0)], config))
    return torch.cat([(up @ down).flatten() for down, up in fold_all(adapters).values()])
