"""ComfyUI's IMAGE [b, H, W, 3] <-> photos [3, H, W] of the package, as ordinary tensors."""

from collections.abc import Sequence

from torch import Tensor


def photos_of(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Every photo of an IMAGE, or of a list of them; copies, since what comes in may be an inference tensor."""
    batches = [images] if isinstance(images, Tensor) else list(images)
    return [photo[..., :3].movedim(-1, 0).float().cpu().clone() for batch in batches for photo in batch]


def masks_of(masks: Sequence[Tensor]) -> list[Tensor]:
    """Every mask [H, W] of a list of MASKs [b, H, W]; copies."""
    return [mask.float().cpu().clone() for batch in masks for mask in batch]


def image_of(photo: Tensor) -> Tensor:
    """A photo as an IMAGE of one."""
    return photo.movedim(0, -1)[None].contiguous()
