"""All pairs of some photos, and whose photos are nearest: what `metalora.measure.verification` does not have."""

import numpy as np


def pair_scores(embeddings: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(genuine, impostor) cosines of all pairs of unit embeddings [n, d], by person [n]."""
    first, second = np.triu_indices(len(embeddings), 1)
    scores = (embeddings @ embeddings.T)[first, second]
    same = people[first] == people[second]
    return scores[same], scores[~same]


def rank_one(embeddings: np.ndarray, people: np.ndarray) -> float:
    """How often the person whose other photos are nearest on average is the right one."""
    scores, names = embeddings @ embeddings.T, np.unique(people)
    right = 0
    for index, person in enumerate(people):
        others = np.arange(len(people)) != index
        means = [scores[index, others & (people == name)].mean() for name in names]
        right += names[int(np.argmax(means))] == person
    return right / len(people)
