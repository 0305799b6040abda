"""Nodes that load: a Meta-Down, and the miniature FLUX that needs no download."""

from pathlib import Path

from comfy_api.latest import io

from ..metalora.backbones.fingerprints import fingerprint_of_file
from ..metalora.backbones.pipeline import Parts
from ..metalora.backbones.pipeline_folder import Miniature
from ..metalora.backbones.tiny_flux import TinyFlux
from ..metalora.config import UserError
from ..metalora.jobs.info import describe
from ..metalora.jobs.meta_downs import RANDOM, SHIPPED
from .bridge import folders, small
from .small_flux import load_small_flux
from .sockets import CATEGORY, MetaDown, MetaDownSocket

CONTROL = "random (untrained control)"
SHIPPED_MARK = "shipped: "
SMALL: dict[str, type] = {"miniature": Miniature, "tiny (random weights)": TinyFlux}


class LoadMetaDown(io.ComfyNode):
    """A Meta-Down file as a wire."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MetaLoRA_LoadMetaDown",
            display_name="Load Meta-Down",
            category=CATEGORY,
            description="The shared half of a LoRA, meta-trained for one class of one model. Files belong in "
            "models/meta_lora.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*shipped(), *folders.meta_down_files(), CONTROL],
                    tooltip="A Meta-Down for your model and class. The random one has learned nothing: it is the "
                    "control that a trained one must beat.",
                )
            ],
            outputs=[
                MetaDownSocket.Output(display_name="meta_down", tooltip="For Train Meta-LoRA Personalization."),
                io.String.Output(display_name="about", tooltip="What the file says of itself."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file if file == CONTROL else fingerprint_of_file(path_of(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        if file == CONTROL:
            return io.NodeOutput(MetaDown(RANDOM), "A Meta-Down drawn from the seed: the untrained control.")
        path = path_of(file)
        return io.NodeOutput(MetaDown(str(path)), describe(path))


class LoadMiniature(io.ComfyNode):
    """MODEL, CLIP and VAE of a FLUX small enough for any CPU."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MetaLoRA_LoadMiniature",
            display_name="Load Miniature FLUX",
            category=CATEGORY,
            description="A small, real FLUX of rendered people that comes with this pack: every workflow can be tried "
            "in minutes on a CPU, without a download. Images are 128 x 128 pixels.",
            inputs=[
                io.Combo.Input(
                    "network",
                    options=list(SMALL),
                    tooltip="miniature: the trained one. tiny: random weights, for tests; its images are noise.",
                )
            ],
            outputs=[
                io.Model.Output(tooltip="The transformer."),
                io.Clip.Output(tooltip="Both text encoders."),
                io.Vae.Output(tooltip="The autoencoder."),
            ],
        )

    @classmethod
    def execute(cls, network: str) -> io.NodeOutput:
        if network not in SMALL:  # the server checks no choices
            raise UserError(f"There is no network {network!r}; choose one of: {', '.join(SMALL)}.")
        parts: Parts = SMALL[network]()
        return io.NodeOutput(*load_small_flux(parts, small.small_parts))


def shipped() -> list[str]:
    """The Meta-Downs that come with the pack, as the widget names them."""
    return [SHIPPED_MARK + path.name for path in sorted(SHIPPED.glob("*.safetensors"))]


def path_of(file: str) -> Path:
    """Where the file of this name is."""
    if file in shipped():  # the server checks no choices
        return SHIPPED / file.removeprefix(SHIPPED_MARK)
    return folders.meta_down_path(file)
