"""Are two photos of one person? Scores of pairs, and how well they part the same from different. Numbers only."""

from dataclasses import dataclass

import numpy as np

from ..config import UserError


@dataclass(frozen=True)
class Verification:
    """How well an embedder tells people apart on some photos."""

    genuine_mean: float  # the ceiling of any similarity measured with these photos
    impostor_mean: float  # its floor
    auc: float
    eer: float
    genuine: int  # pairs
    impostor: int


def verify(scores: np.ndarray, same: np.ndarray) -> Verification:
    """From the cosines [n] of pairs and whether each is of one person [n]."""
    genuine, impostor = scores[same], scores[~same]
    if not len(genuine) or not len(impostor):
        raise UserError(
            f"{len(genuine)} pairs of the same person and {len(impostor)} of different people: both kinds are needed."
        )
    return Verification(
        float(genuine.mean()),
        float(impostor.mean()),
        auc(genuine, impostor),
        equal_error_rate(genuine, impostor),
        len(genuine),
        len(impostor),
    )


def auc(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The probability that a genuine pair scores above an impostor pair; ties count half."""
    ordered = np.sort(impostor)
    below = np.searchsorted(ordered, genuine, "left") + np.searchsorted(ordered, genuine, "right")
    return float(below.mean() / 2 / len(impostor))


def equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The error at the threshold where as many genuine pairs are refused as impostors accepted."""
    thresholds = np.sort(np.concatenate([genuine, impostor]))
    refused = np.searchsorted(np.sort(genuine), thresholds, "left") / len(genuine)
    accepted = 1 - np.searchsorted(np.sort(impostor), thresholds, "left") / len(impostor)
    nearest = np.abs(refused - accepted).argmin()
    return float((refused[nearest] + accepted[nearest]) / 2)
