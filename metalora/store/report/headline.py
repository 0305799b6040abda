"""What a run found, in sentences that need no table."""

from .html import Html, element, joined, paragraph
from .results import Figure, Results, Variant
from .scores import CLIP_T, R_FACESIM, comparison, interval, number, ranked, share


def headline(results: Results) -> Html:
    """The first paragraphs of the page: who is first, by how much, how sure that is, and what the scale means."""
    order = ranked(results, R_FACESIM.key)
    if not order:
        return paragraph(element("strong", {}, _without_faces(results)))
    first = order[0]
    sentences = [_first(results, first, first.figure(R_FACESIM.key))]
    if len(order) > 1:
        sentences.append(_second(results, first, order[1]))
    return joined([element("p", {"class": "lead"}, " ".join(sentences)), paragraph(*_scale(results, first))])


def _first(results: Results, first: Variant, figure: Figure | None) -> str:
    assert figure is not None
    people = f"{figure.count} people" if figure.count != 1 else "1 person"
    sure = f" (95% interval {interval(figure, 3)})" if figure.low is not None else ""
    alone = len(results.variants) == 1
    verb = "reaches" if alone else "makes the faces most like the person:"
    return f"{first.label} {verb} R-FaceSim {number(figure.mean, 3)}{sure}, over {people}."


def _second(results: Results, first: Variant, second: Variant) -> str:
    figure = second.figure(R_FACESIM.key)
    assert figure is not None
    text = f"Next is {second.label} with {number(figure.mean, 3)}."
    found = comparison(results, first, second, R_FACESIM.key, "left out")
    if found is None or found.low is None or found.high is None:
        return f"{text} How sure that difference is was not measured."
    difference = f"{number(found.mean, 3)} ({interval(found, 3)})"
    if found.low > 0:
        return f"{text} Compared person by person, the difference is {difference}: more than chance."
    return f"{text} Compared person by person, the difference is {difference}: these people do not tell the two apart."


def _scale(results: Results, first: Variant) -> list[str]:
    faces, parts = results.faces, []
    if faces.genuine_mean is not None and faces.impostor_mean is not None:
        parts.append(
            f"With the same measure ({faces.name}), real photos of two different people score "
            f"{number(faces.impostor_mean, 3)} and real photos of one person {number(faces.genuine_mean, 3)}. "
        )
        if (position := first.summary["position"]) is not None:
            parts.append(f"{first.label} stands at {share(position)} of the way from the one to the other. ")
    rate = first.summary["detection_rate"]
    if rate is not None:
        parts.append(f"A face was found in {share(rate)} of its images. ")
    as_zero = ranked(results, R_FACESIM.key, "as zero")
    if as_zero and as_zero[0].id != first.id:
        parts.append(f"If images without a face count as 0, {as_zero[0].label} is first instead. ")
    by_prompt = ranked(results, CLIP_T.key)
    if len(by_prompt) > 1:
        figure = by_prompt[0].figure(CLIP_T.key)
        assert figure is not None
        parts.append(f"Closest to the prompts is {by_prompt[0].label}, with CLIP-T {number(figure.mean, 2)}.")
    return parts


def _without_faces(results: Results) -> str:
    by_prompt = ranked(results, CLIP_T.key)
    figure = by_prompt[0].figure(CLIP_T.key) if by_prompt else None
    if figure is None:
        return "No score could be computed: there was no image with a face, and no CLIP."
    return (
        "R-FaceSim was not measured: no generated image had a face, or nobody here has photos to compare with. "
        f"Closest to the prompts is {by_prompt[0].label}, with CLIP-T {number(figure.mean, 2)}."
    )
