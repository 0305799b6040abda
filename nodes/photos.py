"""Load Photos: the pictures of a folder, as they lie on the disk."""

from pathlib import Path

from comfy_api.latest import io

from ..metalora.backbones.fingerprints import fingerprint_of_stats
from ..metalora.config import UserError
from ..metalora.store.folders import pictures_in
from ..metalora.store.images import read_photo
from .bridge import folders
from .pictures import image_of
from .running import work
from .sockets import CATEGORY, schema


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
            outputs=[io.Image.Output(display_name="photos", is_output_list=True, tooltip="One image for each file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, photos_folder: str) -> str:
        return fingerprint_of_stats(photos_in(photos_folder))

    @classmethod
    def execute(cls, photos_folder: str) -> io.NodeOutput:
        with work():
            return io.NodeOutput([image_of(read_photo(path)) for path in photos_in(photos_folder)])


def photos_in(name: str) -> list[Path]:
    """The pictures of the folder that is meant, at least one."""
    if not name.strip():
        raise UserError("photos_folder is empty: name a folder of photos, or a sub-folder of ComfyUI's input folder.")
    folder = folders.allowed_path(name)
    found = pictures_in(folder)
    if not found:
        raise UserError(f"{folder} holds no picture.")
    return found
