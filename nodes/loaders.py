"""Nodes that load: a Meta-Down, photos, and the miniature FLUX and its people, which need no download."""

from functools import cache
from pathlib import Path

from comfy_api.latest import io

from ..metalora.backbones.pipeline_folder import Miniature
from ..metalora.backbones.tiny_flux import TinyFlux
from ..metalora.backbones.weight_files import fingerprint_of_file, fingerprint_of_stats
from ..metalora.config import UserError
from ..metalora.jobs.benchmark.prepare import mini_benchmark
from ..metalora.jobs.info import describe
from ..metalora.jobs.training_files import RANDOM, SHIPPED
from ..metalora.store.folders import pictures_in
from ..metalora.store.images import read_photo
from ..metalora.store.manifest import Identity, read_manifest
from ..metalora.store.text import read_text
from .bridge import folders, small
from .pictures import image_of
from .running import work
from .sockets import CATEGORY, MetaDown, MetaDownSocket, schema

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
        return io.NodeOutput(*small.small_parts(SMALL[network]()))


def shipped() -> list[str]:
    """The Meta-Downs that come with the pack, as the widget names them."""
    return [SHIPPED_MARK + path.name for path in sorted(SHIPPED.glob("*.safetensors"))]


def path_of(file: str) -> Path:
    """Where the file of this name is."""
    if file in shipped():  # the server checks no choices
        return SHIPPED / file.removeprefix(SHIPPED_MARK)
    return folders.meta_down_path(file)


class LoadDemoPerson(io.ComfyNode):
    """One photo to learn from, and photos of the same person to compare with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MetaLoRA_LoadDemoPerson",
            display_name="Load Demo Person",
            category=CATEGORY,
            description="A rendered person of the miniature's world, nobody real: one photo to learn from, and others "
            "that stay unseen. Replace it with Load Image when you use your own photos.",
            inputs=[io.Combo.Input("person", options=list(people()), tooltip="Who; all are in no training.")],
            outputs=[
                io.Image.Output(display_name="photo", tooltip="The photo to learn from."),
                io.Image.Output(display_name="held_out", is_output_list=True, tooltip="Photos that stay unseen."),
                io.String.Output(display_name="class_name", tooltip="woman or man."),
            ],
        )

    @classmethod
    def execute(cls, person: str) -> io.NodeOutput:
        chosen = people()[person]
        photo, *held_out = (image_of(read_photo(one.path)) for one in (chosen.reference, *chosen.held_out))
        return io.NodeOutput(photo, held_out, chosen.class_name)


@cache
def people() -> dict[str, Identity]:
    """Those of the mini benchmark who have held-out photos."""
    manifest = read_manifest(mini_benchmark() / "manifest.jsonl", look=False)
    return {person.name: person for person in manifest.people if person.held_out}


class LoadPhotos(io.ComfyNode):
    """A folder -> a list of images, each of its own size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["load images", "image folder", "batch load"],
            node_id="MetaLoRA_LoadPhotos",
            display_name="Load Photos of a Folder",
            category=CATEGORY,
            description="Every picture of a folder in the order of their names, upright, each at its own size: photos "
            "that stay unseen, or images that another program made.",
            inputs=[
                io.String.Input(
                    "photos_folder",
                    default="",
                    tooltip="A folder under ComfyUI's input folder, or its full path there, in output or in models.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="photos", is_output_list=True, tooltip="One image for each file."),
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="What ada.txt says beside ada.jpg; empty where there is none. For Augment Face Crops.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, photos_folder: str) -> str:
        paths = photos_in(photos_folder)
        return fingerprint_of_stats([*paths, *(path.with_suffix(".txt") for path in paths)])

    @classmethod
    def execute(cls, photos_folder: str) -> io.NodeOutput:
        with work():
            paths = photos_in(photos_folder)
            texts = [path.with_suffix(".txt") for path in paths]
            captions = [read_text(text, "a caption file").strip() if text.is_file() else "" for text in texts]
            return io.NodeOutput([image_of(read_photo(path)) for path in paths], captions)


def photos_in(name: str) -> list[Path]:
    """The pictures of the folder that is meant, at least one."""
    if not name.strip():
        raise UserError("photos_folder is empty: name a folder of photos, or a sub-folder of ComfyUI's input folder.")
    folder = folders.allowed_path(name)
    found = pictures_in(folder)
    if not found:
        raise UserError(f"{folder} holds no picture.")
    return found
