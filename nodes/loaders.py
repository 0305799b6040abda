"""Nodes that load: a Meta-Down, photos, and the miniature FLUX and its people, which need no download."""

from functools import cache
from pathlib import Path

from comfy_api.latest import io

from ..metalora.backbones.pipeline_folder import Miniature, fingerprint_of_file
from ..metalora.backbones.tiny_flux import TinyFlux
from ..metalora.config import UserError
from ..metalora.jobs.benchmark.prepare import mini_benchmark
from ..metalora.jobs.info import describe, fingerprint_of_stats
from ..metalora.jobs.training_files import RANDOM, SHIPPED
from ..metalora.store.folders import pictures_in
from ..metalora.store.images import read_photo
from ..metalora.store.manifest import Identity, read_manifest
from ..metalora.store.text import read_text
from .bridge import folders, small
from .pictures import image_of
from .running import work
from .sockets import MetaDown, MetaDownSocket, schema

CONTROL = "random (untrained control)"
SHIPPED_MARK = "shipped: "
SMALL: dict[str, type] = {"miniature": Miniature, "tiny (random weights)": TinyFlux}


class LoadMetaDown(io.ComfyNode):
    """A Meta-Down file as a wire."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_LoadMetaDown",
            inputs=[io.Combo.Input("file", options=[*shipped(), *folders.meta_down_files(), CONTROL])],
            outputs=[
                MetaDownSocket.Output(display_name="meta_down"),
                io.String.Output(display_name="about"),
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
        return schema(
            "MetaLoRA_LoadMiniature",
            inputs=[io.Combo.Input("network", options=list(SMALL))],
            outputs=[
                io.Model.Output(),
                io.Clip.Output(),
                io.Vae.Output(),
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
        return schema(
            "MetaLoRA_LoadDemoPerson",
            inputs=[io.Combo.Input("person", options=list(people()))],
            outputs=[
                io.Image.Output(display_name="photo"),
                io.Image.Output(display_name="held_out", is_output_list=True),
                io.String.Output(display_name="class_name"),
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
            "MetaLoRA_LoadPhotos",
            search_aliases=["load images", "image folder", "batch load"],
            inputs=[io.String.Input("photos_folder", default="")],
            outputs=[
                io.Image.Output(display_name="photos", is_output_list=True),
                io.String.Output(display_name="captions", is_output_list=True),
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
