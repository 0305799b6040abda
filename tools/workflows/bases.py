"""The bases that photos are learned with, and the files their workflows load, as ComfyUI's own templates name them."""

from dataclasses import dataclass

HUB = "https://huggingface.co"
DIFFUSION, TEXT, VAE = "diffusion_models", "text_encoders", "vae"
MODEL_FILES = {  # name -> (folder under models/, place)
    "flux1-dev.safetensors": (DIFFUSION, f"{HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors"),
    "clip_l.safetensors": (TEXT, f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors"),
    "t5xxl_fp16.safetensors": (TEXT, f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp16.safetensors"),
    "ae.safetensors": (VAE, f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/vae/ae.safetensors"),
    "flux-2-klein-base-4b.safetensors": (
        DIFFUSION,
        f"{HUB}/Comfy-Org/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-base-4b.safetensors",
    ),
    "qwen_3_4b.safetensors": (
        TEXT,
        f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
    ),
    "flux2-vae.safetensors": (VAE, f"{HUB}/Comfy-Org/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors"),
    "z_image_bf16.safetensors": (
        DIFFUSION,
        f"{HUB}/Comfy-Org/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
    ),
    "qwen_image_fp8_e4m3fn.safetensors": (
        DIFFUSION,
        f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/diffusion_models/"
        "qwen_image_fp8_e4m3fn.safetensors",
    ),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (
        TEXT,
        f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/text_encoders/"
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
    "qwen_image_vae.safetensors": (
        VAE,
        f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/vae/qwen_image_vae.safetensors",
    ),
    "krea2_turbo_fp8_scaled.safetensors": (
        DIFFUSION,
        f"{HUB}/Comfy-Org/Krea-2/resolve/main/diffusion_models/krea2_turbo_fp8_scaled.safetensors",
    ),
    "krea2_raw_fp8_scaled.safetensors": (
        DIFFUSION,
        f"{HUB}/Comfy-Org/Krea-2/resolve/main/diffusion_models/krea2_raw_fp8_scaled.safetensors",
    ),
    "qwen3vl_4b_fp8_scaled.safetensors": (
        TEXT,
        f"{HUB}/Comfy-Org/Krea-2/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
    ),
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
