"""Are two photos of one person? Scores of pairs, and how well they part the same from different. Numbers only."""

import numpy as np


def pair_scores(embeddings: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(genuine, impostor) cosines of all pairs of unit embeddings [n, d], by person [n]."""
    first, second = np.triu_indices(len(embeddings), 1)
    scores = (embeddings @ embeddings.T)[first, second]
    same = people[first] == people[second]
    return scores[same], scores[~same]


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


def rank_one(embeddings: np.ndarray, people: np.ndarray) -> float:
    """How often the person whose other photos are nearest on average is the right one."""
    scores, names = embeddings @ embeddings.T, np.unique(people)
    right = 0
    for index, person in enumerate(people):
        others = np.arange(len(people)) != index
        means = [scores[index, others & (people == name)].mean() for name in names]
        right += names[int(np.argmax(means))] == person
    return right / len(people)
