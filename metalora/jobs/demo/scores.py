"""The demo's likeness, placed between other people and the people's own photos; and CLIP-T by the miniature's CLIP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from ...measure import load_faces
from ...measure.clip import ClipScorer, clip_problem, load_clip
from ...measure.faces import FaceAnalyser
from ...measure.similarity import cosines, identity_means, means_of, score_image
from ..evaluate.photos import all_embeddings, only_embedding
from ..evaluate.whole import as_bytes
from ..generate import Image
from .people import DemoPerson


@dataclass(frozen=True)
class MethodScores:
    """Of one method's images."""

    images: int
    found: int  # images with a face
    likeness: dict[str, float]  # R-FaceSim of each person with a face in some image
    clip_t: dict[str, float]  # of each person; empty: open_clip is not installed
    of_image: dict[Path, float | None]  # likeness; None: no face

    @property
    def r_facesim(self) -> float | None:
        """The mean over people; None: no face in any image."""
        return mean(self.likeness.values()) if self.likeness else None


@dataclass(frozen=True)
class Scores:
    """Of every method, with what R-FaceSim lies between."""

    floor: float  # people's unseen photos against other people of the class
    ceiling: float  # against each other and the photo that was learned from
    by_method: dict[str, MethodScores]


def scores_of(people: Sequence[DemoPerson], images: Mapping[str, Sequence[Sequence[Image]]]) -> Scores | None:
    """R-FaceSim with SFace and CLIP-T of each method's images, person by person; None without unseen photos."""
    if not all(person.unseen for person in people):
        return None
    faces = load_faces("sface")
    references = [only_embedding(faces, person.portrait) for person in people]
    unseen = [torch.stack([face[0] for face in all_embeddings(faces, person.unseen)]) for person in people]
    between = [_between(faces, *each) for each in zip(people, references, unseen, strict=True)]
    clip = None if clip_problem() else load_clip()
    found = {}
    for method, of_people in images.items():
        made = [(row, image) for row, several in enumerate(of_people) for image in several]
        embedded = all_embeddings(faces, [image.path for _, image in made])
        likeness = [
            score_image(people[row].name, image.prompt, embedding, unseen[row], references[row])
            for (row, image), embedding in zip(made, embedded, strict=True)
        ]
        found[method] = MethodScores(
            len(made),
            sum(bool(score.faces) for score in likeness),
            identity_means(likeness, "held_out", "left out"),
            clip_t(clip, [(people[row].name, image) for row, image in made]) if clip else {},
            {image.path: score.held_out for (_, image), score in zip(made, likeness, strict=True)},
        )
    return Scores(mean(floor for floor, _ in between), mean(ceiling for _, ceiling in between), found)


def _between(
    faces: FaceAnalyser, person: DemoPerson, reference: torch.Tensor, unseen: torch.Tensor
) -> tuple[float, float]:
    """(what other people of the class reach, what the person's own photos reach)."""
    strangers = torch.stack([face[0] for face in all_embeddings(faces, person.strangers)])
    own = cosines(unseen, torch.cat([unseen, reference[None]]))
    itself = torch.eye(*own.shape, dtype=torch.bool)
    return cosines(unseen, strangers).mean().item(), own[~itself].mean().item()


def clip_t(clip: ClipScorer, made: Sequence[tuple[str, Image]]) -> dict[str, float]:
    """By person, how well the images show what the prompts ask for."""
    seen = clip.images([as_bytes(image.path) for _, image in made])
    asked = clip.texts([image.prompt for _, image in made])
    cosine = (100 * cosines(seen, asked).diagonal()).tolist()
    return means_of((name, image.prompt, value) for (name, image), value in zip(made, cosine, strict=True))
