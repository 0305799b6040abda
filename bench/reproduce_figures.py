"""What the reproduction asks of its results: paired differences between runs, and how soon Meta-LoRA is as good."""

from dataclasses import dataclass
from statistics import mean

from metalora.config import FEWEST_PEOPLE
from metalora.measure.intervals import paired
from metalora.measure.similarity import means_of
from metalora.store.report.results import Figure, ImageRow, Results, Variant

R_FACESIM, CLIP_T, COPYING = "r_facesim", "clip_t", "copying"


def values(variant: Variant, score: str) -> dict[str, float]:
    """Each person's mean over prompts of means over images; images without a face are left out of face scores."""
    return means_of((image.identity, image.prompt, value_of(image, score)) for image in variant.images)


def value_of(image: ImageRow, score: str) -> float | None:
    """One image's score; None where it has none."""
    if score == CLIP_T:
        return image.clip_t
    if not image.faces or image.held_out is None:
        return None
    if score == R_FACESIM:
        return image.held_out
    return None if image.reference is None else image.reference - image.held_out


def difference(one: Variant, other: Variant, score: str) -> Figure | None:
    """One minus other, paired over the people that both have a score of."""
    a, b = values(one, score), values(other, score)
    common = sorted(a.keys() & b.keys())
    if not common:
        return None
    if len(common) < FEWEST_PEOPLE:
        return Figure(mean(a[name] - b[name] for name in common), None, None, len(common))
    found = paired({name: a[name] for name in common}, {name: b[name] for name in common})
    return Figure(found.mean, found.low, found.high, found.count)


@dataclass(frozen=True)
class Pace:
    """The claim at one rank: LoRA + crops at its own best step, and the first step where Meta-LoRA is as like."""

    rank: int
    best: Variant
    reached: Variant | None  # None: at no step count that was measured
    likeness: Figure | None  # Meta-LoRA there minus LoRA + crops at its best
    prompt: Figure | None

    @property
    def share(self) -> float | None:
        """Of the steps; the paper's is 375 / 625 = 0.6."""
        return None if self.reached is None else (self.reached.steps or 0) / (self.best.steps or 1)


def paces(results: Results) -> list[Pace]:
    """At every rank at which both were measured."""
    return [found for rank in ranks_of(results) if (found := pace(results, rank))]


def pace(results: Results, rank: int) -> Pace | None:
    """At one rank."""
    rivals = {v.steps: f.mean for v in line(results, "lora-crops", rank) if (f := v.figure(R_FACESIM))}
    if not rivals:
        return None
    best = next(
        v for v in line(results, "lora-crops", rank) if v.steps == max(rivals, key=lambda s: (rivals[s], -(s or 0)))
    )
    ours = [(v, f.mean) for v in line(results, "meta-lora", rank) if (f := v.figure(R_FACESIM))]
    if not ours:
        return None
    reached = next((variant for variant, likeness in ours if likeness >= rivals[best.steps]), None)
    compared = reached or ours[-1][0]
    return Pace(rank, best, reached, difference(compared, best, R_FACESIM), difference(compared, best, CLIP_T))


def line(results: Results, method: str, rank: int | None) -> list[Variant]:
    """A method at a rank, by step count."""
    found = [variant for variant in results.variants if variant.method == method and variant.rank == rank]
    return sorted(found, key=lambda variant: variant.steps or 0)


def ranks_of(results: Results) -> list[int]:
    """The ranks that were measured."""
    return sorted({variant.rank for variant in results.variants if variant.rank is not None})


def like(results: Results, variant: Variant) -> Variant | None:
    """The variant of the same method, steps and rank in another run."""
    same = (variant.method, variant.steps, variant.rank)
    return next((v for v in results.variants if (v.method, v.steps, v.rank) == same), None)
