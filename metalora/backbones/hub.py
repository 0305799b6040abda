"""What the Hugging Face hub's cache on this machine holds, or else the hub itself."""

from pathlib import Path

from ..config import UserError


def snapshot(name: str, files: list[str], otherwise: str) -> Path:
    """The folder of a hub repository with the named files; `otherwise` tells the user what to do if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"{name} is neither in the Hugging Face cache nor could it be fetched "
            f"({type(error).__name__}: {lines[0]}). {otherwise}"
        ) from error
