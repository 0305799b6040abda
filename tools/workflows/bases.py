"""The bases that photos are learned with, and the files their workflows load, as ComfyUI's own templates name them."""

from dataclasses import dataclass

HUB = "https://huggingface.co"
DIFFUSION, TEXT, VAE = "diffusion_models", "text_encoders", "vae"
PLACES = {  # file -> (folder under models/, repository, folder there)
    "flux1-dev.safetensors": (DIFFUSION, "Comfy-Org/flux1-dev", ""),
    "clip_l.safetensors": (TEXT, "comfyanonymous/flux_text_encoders", ""),
    "t5xxl_fp16.safetensors": (TEXT, "comfyanonymous/flux_text_encoders", ""),
    "ae.safetensors": (VAE, "Comfy-Org/z_image_turbo", "split_files/vae/"),
    "flux-2-klein-base-4b.safetensors": (DIFFUSION, "Comfy-Org/flux2-klein", "split_files/diffusion_models/"),
    "qwen_3_4b.safetensors": (TEXT, "Comfy-Org/z_image_turbo", "split_files/text_encoders/"),
    "flux2-vae.safetensors": (VAE, "Comfy-Org/flux2-dev", "split_files/vae/"),
    "z_image_bf16.safetensors": (DIFFUSION, "Comfy-Org/z_image", "split_files/diffusion_models/"),
    "qwen_image_fp8_e4m3fn.safetensors": (DIFFUSION, "Comfy-Org/Qwen-Image_ComfyUI", "split_files/diffusion_models/"),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (TEXT, "Comfy-Org/Qwen-Image_ComfyUI", "split_files/text_encoders/"),
    "qwen_image_vae.safetensors": (VAE, "Comfy-Org/Qwen-Image_ComfyUI", "split_files/vae/"),
    "krea2_turbo_fp8_scaled.safetensors": (DIFFUSION, "Comfy-Org/Krea-2", "diffusion_models/"),
    "krea2_raw_fp8_scaled.safetensors": (DIFFUSION, "Comfy-Org/Krea-2", "diffusion_models/"),
    "qwen3vl_4b_fp8_scaled.safetensors": (TEXT, "Comfy-Org/Krea-2", "text_encoders/"),
}
MODEL_FILES = {  # file -> (folder under models/, address)
    file: (folder, f"{HUB}/{repository}/resolve/main/{there}{file}")
    for file, (folder, repository, there) in PLACES.items()
}


@dataclass(frozen=True)
class Base:
    """What its workflow loads, and how images are made with it."""

    name: str
    model: str
    clip: tuple[str, ...]  # one file, or FLUX.1's two
    clip_type: str
    vae: str
    cfg: float = 1.0
    steps: int = 25
    guidance: float | None = None  # FLUX.1's built-in one
    latent: str = "EmptySD3LatentImage"
    draws: str | None = None  # another file of the same base, which makes the images

    @property
    def files(self) -> list[str]:
        """All of them, in the order of the loaders."""
        return [file for file in (self.model, self.draws, *self.clip, self.vae) if file]


BASES = (
    Base(
        "FLUX.1-dev",
        "flux1-dev.safetensors",
        ("clip_l.safetensors", "t5xxl_fp16.safetensors"),
        "flux",
        "ae.safetensors",
        steps=30,
        guidance=3.5,
    ),
    Base(
        "FLUX.2-klein-base-4B",
        "flux-2-klein-base-4b.safetensors",
        ("qwen_3_4b.safetensors",),
        "flux2",
        "flux2-vae.safetensors",
        cfg=5.0,
        steps=20,
        latent="EmptyFlux2LatentImage",
    ),
    Base("Z-Image", "z_image_bf16.safetensors", ("qwen_3_4b.safetensors",), "lumina2", "ae.safetensors", cfg=4.0),
    Base(
        "Qwen-Image",
        "qwen_image_fp8_e4m3fn.safetensors",
        ("qwen_2.5_vl_7b_fp8_scaled.safetensors",),
        "qwen_image",
        "qwen_image_vae.safetensors",
        cfg=4.0,
        steps=30,
    ),
    Base(
        "Krea 2",
        "krea2_raw_fp8_scaled.safetensors",
        ("qwen3vl_4b_fp8_scaled.safetensors",),
        "krea2",
        "qwen_image_vae.safetensors",
        steps=8,
        draws="krea2_turbo_fp8_scaled.safetensors",
    ),
)
