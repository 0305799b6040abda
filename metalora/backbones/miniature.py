"""The miniature: a small, real FLUX of rendered people that ships with the package, so that nothing is downloaded."""

from pathlib import Path

from ..config import UserError
from .diffusers_folder import DiffusersFolder

FOLDER = Path(__file__).parents[1] / "data" / "miniature"  # by place: inside ComfyUI the package has another name


class Miniature(DiffusersFolder):
    """FluxParts of the shipped pipeline folder. Its weights are stored in 16 bits and computed with in 32."""

    def __init__(self) -> None:
        if not (FOLDER / "model_index.json").is_file():
            raise UserError(
                f"The miniature's weights are not in {FOLDER}: the package is incomplete. Install it again."
            )
        super().__init__(FOLDER)
