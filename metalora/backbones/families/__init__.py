"""The families of base models that run through diffusers' classes."""

from ..family import Family
from .flux import FLUX
from .flux2 import Flux2Klein
from .krea2 import Krea2
from .qwen_image import QwenImage
from .sd3 import StableDiffusion3
from .z_image import ZImage

FAMILIES: tuple[Family, ...] = (FLUX, Flux2Klein(), ZImage(), QwenImage(), Krea2(), StableDiffusion3())
