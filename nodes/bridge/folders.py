"""ComfyUI's folders: models/meta_lora, and places under output."""

import logging
import os
from pathlib import Path

import folder_paths

from ...metalora.config import UserError
from ...metalora.store.files import write_bytes
from ...metalora.store.images import demo_portrait
from ...metalora.store.text import problem_of_name

FOLDER = "meta_lora"  # of Meta-Down files, under models/
ALLOWED = "METALORA_FOLDERS"  # of the server's owner: folders that prompts may read beside ComfyUI's own
MADE = "meta_downs"  # stage 1's own, under output/meta_lora


def register_folder() -> None:
    """Where Meta-Down files are: models/meta_lora, and where stage 1 writes them."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir, FOLDER)))
    folder_paths.add_model_folder_path(FOLDER, str(output_folder(FOLDER, MADE)))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def offer_example_photo() -> None:
    """The portrait that shipped workflows open with, into ComfyUI's input folder unless a file of its name is there."""
    photo, inputs = demo_portrait(), Path(folder_paths.get_input_directory())
    if not (inputs / photo.name).exists():
        try:
            write_bytes(inputs / photo.name, photo.read_bytes(), flag="--input-directory")
        except UserError as error:  # a read-only folder: the workflows then ask for a photo
            logging.warning("Meta-LoRA could not offer its example photo: %s", error)


def meta_down_files() -> list[str]:
    """The names of the files in models/meta_lora."""
    return folder_paths.get_filename_list(FOLDER)


def meta_down_path(name: str) -> Path:
    """Where such a file is."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise UserError(f"models/{FOLDER}/{name} is gone. Press R in ComfyUI to read the folder again.")
    return Path(found)


def adapter_files() -> list[str]:
    """The names of the adapters that trainings have written, the newest first."""
    found = output_folder(FOLDER).glob("*.adapter.safetensors")
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def adapter_path(name: str) -> Path:
    """Where such a file is."""
    if name not in adapter_files():  # the server checks no choices
        raise UserError(f"output/{FOLDER}/{name} is gone. Press R in ComfyUI to read the folder again.")
    return output_folder(FOLDER, name)


def output_folder(*parts: str) -> Path:
    """A place under ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory(), *parts)


def allowed_path(given: str) -> Path:
    """The file or folder that a widget names: a full path, or one under ComfyUI's input folder.

    Whoever may queue a prompt is not always the server's owner, so it must lie in ComfyUI's input, output or model
    folders, or in one that the owner names in METALORA_FOLDERS.
    """
    path = Path(os.path.abspath(Path(folder_paths.get_input_directory(), Path(given.strip()).expanduser())))
    own = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.models_dir)
    more = [folder for folder in os.environ.get(ALLOWED, "").split(os.pathsep) if folder]
    if "\0" in given or not any(path.is_relative_to(os.path.abspath(folder)) for folder in (*own, *more)):
        raise UserError(
            f"{given!r} is not in ComfyUI's input, output or models folder. Put it there, or have the server's owner "
            f"start ComfyUI with the environment variable {ALLOWED} set to its folder ({os.pathsep!r} between several)."
        )
    return path


def plain_name(name: str) -> str:
    """The name, unless it could lead out of the folder it belongs in, or some disk would not take it."""
    if problem := problem_of_name(name):
        raise UserError(f"name is {name!r}, but it becomes a file's or a folder's name: {problem}.")
    return name


def numbered_output(subfolder: str, name: str) -> Path:
    """output/<subfolder>/<name>_00001, or the first number that is free."""
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(
        f"{subfolder}/{plain_name(name)}", folder_paths.get_output_directory()
    )
    return Path(folder, f"{stem}_{counter:05}_")
