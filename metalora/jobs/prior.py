"""DreamBooth's prior preservation: what the base itself makes of the class, to be trained on beside the photo."""

from torch import Tensor

from ..backbones.protocol import Backbone, Denoiser, Prompt
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, Phase
from ..method.personalize import TrainingImages
from ..store import files
from ..store.cache import Cache
from . import Job


def prior_images(
    denoiser: Denoiser,
    prompt: Prompt,
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    cache: Cache,
) -> Job[TrainingImages]:
    """What the base itself makes of the class (DreamBooth's prior preservation), as latents: nothing is decoded."""
    sampling, size = GenerateConfig(), (crop_config.resolution // backbone.multiple * backbone.multiple,) * 2
    latents: list[Tensor] = []
    for index in range(config.prior_images):
        key = cache.key(
            what="prior",
            prompt=files.digest_of_tensors(prompt),
            size=list(size),
            seed=index,
            steps=sampling.sampling_steps,
            guidance=sampling.guidance,
            transformer=backbone.fingerprint("transformer"),
        )
        if key not in cache:
            yield Phase(f"the base's own image {index + 1} of {config.prior_images}, for prior preservation")
            made = yield from denoiser.sample(prompt, size, sampling.sampling_steps, sampling.guidance, seeds=[index])
            cache.put(key, {"latent": made})
        latents.append(cache.get(key)["latent"])
    return TrainingImages(latents, prompt)
