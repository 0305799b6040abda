"""ComfyUI's folders: models/meta_lora, and places under output."""

from pathlib import Path

import folder_paths

from ...metalora.config import UserError

FOLDER = "meta_lora"  # of Meta-Down files, under models/
MADE = "meta_downs"  # stage 1's own, under output/meta_lora


def register_folder() -> None:
    """Where Meta-Down files are: models/meta_lora, and where stage 1 writes them."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir, FOLDER)))
    folder_paths.add_model_folder_path(FOLDER, str(output_folder(FOLDER, MADE)))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def meta_down_files() -> list[str]:
    """The names of the files in models/meta_lora."""
    return folder_paths.get_filename_list(FOLDER)


def meta_down_path(name: str) -> Path:
    """Where such a file is."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise UserError(f"models/{FOLDER}/{name} is gone. Press R in ComfyUI to read the folder again.")
    return Path(found)


def output_folder(*parts: str) -> Path:
    """A place under ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory(), *parts)


def input_folder(name: str) -> Path:
    """The folder itself where a full path is given, else one under ComfyUI's input folder."""
    return Path(folder_paths.get_input_directory(), Path(name).expanduser())


def plain_name(name: str) -> str:
    """The name, unless it could lead out of the folder it belongs in."""
    if not name or name in (".", "..") or any(letter in name for letter in '/\\:*?"<>|'):
        raise UserError(f"{name!r} is no plain file name: leave out slashes and marks such as : * ?.")
    return name


def numbered_output(subfolder: str, name: str) -> Path:
    """output/<subfolder>/<name>_00001, or the first number that is free."""
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(
        f"{subfolder}/{plain_name(name)}", folder_paths.get_output_directory()
    )
    return Path(folder, f"{stem}_{counter:05}_")
