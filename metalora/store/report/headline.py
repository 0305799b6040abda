"""What a run found, in sentences that need no table."""

from .html import Html, element, joined, paragraph
from .results import Figure, Results, Variant
from .scores import (
    AUTOENCODER_POSITION,
    CLIP_T,
    IDENTIFIED,
    R_FACESIM,
    TOO_FEW,
    comparison,
    counted,
    interval,
    number,
    ranked,
    share,
)


def headline(results: Results) -> Html:
    """The first paragraphs of the page: who is first, by how much, how sure that is, and what the scale means."""
    order = ranked(results, R_FACESIM.key)
    if not order:
        return element("p", {"class": "lead"}, *_without_faces(results))
    lead = _first(results, order[0])
    if len(order) > 1 and not order[1].missing:
        lead += _second(results, order[0], order[1])
    rest = _scale(results, order[0]) + _other_ways(results, order[0]) + _closest_to_prompts(results)
    return joined([element("p", {"class": "lead"}, *lead), paragraph(*rest)])


def _first(results: Results, first: Variant) -> list[str]:
    figure = _figure(first, R_FACESIM.key)
    sure = f" ({interval(figure, 3) if figure.low is None else '95% interval ' + interval(figure, 3)})"
    verb = " reaches" if len(results.variants) == 1 else " makes the faces most like the person:"
    return [_named(first), f"{verb} R-FaceSim {number(figure.mean, 3)}{sure}, over {counted(figure.count, 'person')}. "]


def _second(results: Results, first: Variant, second: Variant) -> list[str]:
    reached = number(_figure(second, R_FACESIM.key).mean, 3)
    found = comparison(results, first, second, R_FACESIM.key, "left out")
    if found is None:
        sure = "How sure that difference is was not measured."
    elif found.low is None or found.high is None:
        sure = f"How sure that difference is cannot be said of {TOO_FEW}."
    else:
        meaning = "more than chance" if found.low > 0 else "these people do not tell the two apart"
        difference = f"{number(found.mean, 3)} ({interval(found, 3)})"
        sure = f"Compared person by person, the difference is {difference}: {meaning}."
    return ["Next is ", _named(second), f" with {reached}. {sure}"]


def _scale(results: Results, first: Variant) -> list[str]:
    faces, position = results.faces, first.summary["position"]
    if faces.genuine_mean is None or faces.impostor_mean is None:
        return []
    parts: list[str] = [
        f"With the same measure ({faces.name}), real photos of two different people score "
        f"{number(faces.impostor_mean, 3)} and real photos of one person {number(faces.genuine_mean, 3)}. "
    ]
    if position is not None:
        parts += [_named(first), f" stands at {share(position)} of the way from the one to the other. "]
    near = first.figure(AUTOENCODER_POSITION.key)
    if near is not None:
        parts.append(
            f"Real photos that only went through the base's autoencoder reach {number(faces.autoencoder_mean, 3)}; of "
            f"the way from strangers to there, these images stand at {share(near.mean)}. "
        )
    found = first.figure(IDENTIFIED.key)
    if found is not None:
        people = counted(len(results.gallery), "person")
        parts.append(f"Among {people}, the right one is the nearest to {share(found.mean)} of its images. ")
    return parts


def _other_ways(results: Results, first: Variant) -> list[str]:
    """What speaks against the first place."""
    parts: list[str] = [f"A face was found in {share(first.summary['detection_rate'])} of its images. "]
    as_zero = ranked(results, R_FACESIM.key, "as zero")
    if as_zero and as_zero[0].id != first.id:
        parts += ["If images without a face count as 0, ", _named(as_zero[0]), " is first instead. "]
    for variant in results.variants:
        if variant.missing:
            parts += ["Not ranked: ", _named(variant), f", with {counted(len(variant.missing), 'image')} missing. "]
    return parts


def _closest_to_prompts(results: Results) -> list[str]:
    order = ranked(results, CLIP_T.key)
    if not order:
        return []
    return [
        "The images that fit their prompts best are those of ",
        _named(order[0]),
        f": CLIP-T {number(_figure(order[0], CLIP_T.key).mean, 2)}.",
    ]


def _without_faces(results: Results) -> list[str]:
    if any(image.faces for variant in results.variants for image in variant.images):
        why = "Nobody in this run has photos to compare with, so there is no R-FaceSim. "
    else:
        why = "No face was found in any image, so there is no R-FaceSim. "
    return [why, *_closest_to_prompts(results)]


def _figure(variant: Variant, score: str) -> Figure:
    figure = variant.figure(score)
    assert figure is not None, (variant.id, score)
    return figure


def _named(variant: Variant) -> Html:
    """A label holds commas, so it is set apart."""
    return element("b", {}, variant.label)
