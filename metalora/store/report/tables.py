"""The tables of a report."""

import json
from pathlib import Path

from .html import Html, element, folded, joined, note, paragraph, section, table
from .marks import named
from .results import Comparison, Results
from .scores import (
    ALL,
    AS_ZERO,
    AUTOENCODER_POSITION,
    COPYING,
    FACES,
    IDENTIFIED,
    R_FACESIM,
    TOO_FEW,
    Score,
    counted,
    interval,
    number,
    present,
    share,
    turned,
    verdict,
    with_interval,
)

MOST_ROWS = 200  # of a table that grows with the square of the variants
PUBLISHED = Path(__file__).parents[2] / "data" / "meta_phd" / "published.json"


def variants_table(results: Results) -> Html:
    """Every variant with all its scores and their intervals: those of faces, then those of whole images."""
    return joined([_faces_table(results), _pictures_table(results)])


def _faces_table(results: Results) -> Html:
    scores = [score for score in present(results) if score in FACES]
    columns = ["Variant"]
    for score in scores:
        columns += [score.title, AS_ZERO] if score is R_FACESIM else [score.title]
    rows = []
    for variant in results.variants:
        cells: list[str] = [named(results, variant)]
        for score in scores:
            cells.append(with_interval(variant.figure(score.key), score.digits))
            if score is R_FACESIM:
                cells.append(with_interval(variant.figure(score.key, "as zero"), score.digits))
        summary = variant.summary
        made = f"{len(variant.images)}" + (f", {len(variant.missing)} missing" if variant.missing else "")
        rows.append([*cells, share(summary["position"]), share(summary["detection_rate"]), made])
    title = "Faces: means over people, with 95% intervals below them"
    return table(title, [*columns, "Position", "Faces found", "Images"], rows)


def _pictures_table(results: Results) -> Html:
    scores = [score for score in present(results) if score not in FACES]
    if not scores:
        return Html()
    rows = [
        [named(results, variant), *(with_interval(variant.figure(score.key), score.digits) for score in scores)]
        for variant in results.variants
    ]
    title = "Whole images: means over people, with 95% intervals below them"
    return table(title, ["Variant", *(score.title for score in scores)], rows)


def truncated_prompts(results: Results) -> Html:
    """The prompts that CLIP could not read to their end: what CLIP-T says of them is of their beginning."""
    if results.clip is None or not (cut := results.clip.truncated):
        return Html()
    texts = "; ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}" for text in cut)
    return note(f"{results.clip.name} reads only the beginning of {counted(len(cut), 'prompt')}: {texts}.")


def meanings(results: Results) -> Html:
    """What each column says."""
    faces = results.faces
    rows = [(score.title, score.meaning + _of_this_run(results, score)) for score in present(results)]
    rows += [
        (AS_ZERO, "R-FaceSim with every image without a face counted as 0; the plain column leaves such images out."),
        (
            "Position",
            f"where R-FaceSim lies between different people (0%: {number(faces.impostor_mean, 3)}) and real photos of "
            f"one person (100%: {number(faces.genuine_mean, 3)}).",
        ),
        ("Faces found", "the share of images in which the detector finds a face."),
        (
            "95% interval",
            "where the mean over people may lie, if other people had been drawn. Two variants are better compared by "
            "their paired differences, below: they were scored on the same people. There is none of "
            f"{TOO_FEW}: drawing so few anew gives intervals that are absurdly wide, or have no width.",
        ),
    ]
    items = [part for term, text in rows for part in (element("dt", {}, term), element("dd", {}, text))]
    return folded("What the columns mean", element("dl", {}, *items), open_=False)


def _of_this_run(results: Results, score: Score) -> str:
    """What the numbers of this run rest on, after what the score says in any."""
    faces = results.faces
    if score is IDENTIFIED:
        return f" The gallery has {counted(len(results.gallery), 'person')}."
    if score is AUTOENCODER_POSITION:
        found = f"{faces.autoencoder_detected} of {faces.autoencoder_photos} photos showed a face afterwards"
        return f" Those photos reach {number(faces.autoencoder_mean, 3)}; {found}."
    return ""


def differences_table(results: Results) -> Html:
    """The paired differences, score by score, the larger side first."""
    order = [score.key for score in ALL]
    found = sorted(results.comparisons, key=lambda comparison: order.index(comparison.score))
    rows = [_difference(results, comparison) for comparison in found[:MOST_ROWS]]
    columns = ["Pair", "Score", "Difference", "95% interval", "People", "Told apart"]
    more = f" The first {MOST_ROWS} are shown; the others are in results.json." if len(found) > MOST_ROWS else ""
    return folded(
        f"All {len(found)} paired differences",
        table("One minus the other, person by person", columns, rows),
        note(f"Of 100 such intervals about 5 leave out 0 where there is no difference at all.{more}"),
    )


def _difference(results: Results, comparison: Comparison) -> list[str]:
    shown = comparison if comparison.mean >= 0 else turned(comparison)
    labels = {variant.id: variant.label for variant in results.variants}
    score = next(score for score in ALL if score.key == shown.score)
    return [
        f"{labels[shown.one]} minus {labels[shown.other]}",
        score.title + (", no face = 0" if shown.misses == "as zero" else ""),
        number(shown.mean, score.digits, signed=True),
        interval(shown, score.digits, signed=True),
        str(shown.count),
        verdict(shown),
    ]


def published_table() -> Html:
    """The paper's values in grey, in a table of their own: they are not on this page's scale."""
    record = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    rows = [
        [
            f"{row['method']} ({row['base']})",
            number(row["r_facesim_table_4"] / 100, 4),
            number(row["r_facesim_table_5"] / 100, 4),
            number(row["facesim"] / 100, 4),
            number((row["facesim"] - row["r_facesim_table_4"]) / 100, 4),
            number(row["clip_t"], 2),
            row["training_images"],
        ]
        for row in record["rows"]
    ]
    columns = ["Method", "R-FaceSim (table 4)", "R-FaceSim (table 5)", "FaceSim", COPYING.title, "CLIP-T", "Trained on"]
    return section(
        "What the paper published",
        paragraph(
            "Not measured here and not comparable with the scores above: these are FaceNet similarities of images by "
            "FLUX.1-dev and SDXL at 1024 pixels, of other people and prompts. They show what the paper found among its "
            "own methods, without intervals. No row above is ranked against them."
        ),
        table(
            f"{record['source']}; cosines, which are the paper's percent / 100; copying is their difference",
            columns,
            rows,
            "grey",
        ),
    )


def by_class(results: Results) -> Html:
    """The likeness and the prompt score of each class, and the mean of the classes."""
    names = _names(results, "by_class")
    if not names:
        return Html()
    return folded("By class of people", _means_table(results, "by_class", names, "Class"))


def by_prompt(results: Results) -> Html:
    """The same for each prompt: which are hard?"""
    texts = {prompt.id: prompt.text for prompt in results.prompts}
    names = [name for name in _names(results, "by_prompt") if name in texts]
    if not names:
        return Html()
    return folded("By prompt", _means_table(results, "by_prompt", names, "Prompt", texts))


def _names(results: Results, group: str) -> list[str]:
    return list(dict.fromkeys(name for variant in results.variants for name in variant.summary[group]))


def _means_table(
    results: Results, group: str, names: list[str], title: str, texts: dict[str, str] | None = None
) -> Html:
    """A row a name and variant, with every mean that the summary has."""
    found = {key for variant in results.variants for means in variant.summary[group].values() for key in means}
    scores = [score for score in ALL if score.key in found]
    rows = []
    for name in names:
        for variant in results.variants:
            cells = [number(variant.mean(group, name, score.key), score.digits) for score in scores]
            rows.append([(texts or {}).get(name, name), variant.label, *cells])
    return table("Means without intervals", [title, "Variant", *(score.title for score in scores)], rows)
