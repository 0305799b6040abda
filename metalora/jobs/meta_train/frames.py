"""What of a photo stage 1 is trained on, and at which size: as much of it as one of five aspect ratios has room for."""

from ...config_meta_train import MetaTrainConfig
from ...method import crops
from ...method.crops import RATIOS, Box
from ..photos import Crop


def framed(width: int, height: int, config: MetaTrainConfig, multiple: int) -> Crop:
    """The middle of a photo of this size, in the nearest of the aspect ratios: so batches of one size can be found."""
    ratio = min((w / h for w, h in RATIOS), key=lambda one: max(one * height / width, width / (one * height)))
    size = crops.training_size(ratio, config.resolution, multiple)
    return Crop(crops.trimmed(Box(0, 0, width, height), size[0] / size[1]), size)
