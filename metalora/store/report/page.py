"""The page of one run: one HTML file that needs nothing else, readable by those who have not read the paper."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

from .charts import Row, against_steps, interval_chart, scatter
from .galleries import Galleries
from .headline import headline
from .html import Html, element, joined, paragraph, section
from .marks import colour_class, methods, named
from .pictures import Choice, Thumbnails
from .provenance import provenance
from .results import Results
from .scores import CLIP_T, R_FACESIM, counted, ranked, turned
from .tables import by_class, by_prompt, differences_table, meanings, published_table, truncated_prompts, variants_table

DATA = Path(__file__).parents[2] / "data" / "report"
CHARTED_PAIRS = 12


def report_page(results: Results, choice: Choice, thumbnails: Thumbnails, held_out: Mapping[str, str]) -> str:
    """The whole page. `held_out` names, by identity, the thumbnail of one photo that was not trained on."""
    galleries = Galleries(results, choice, thumbnails, held_out)
    body = [
        headline(results),
        section("Scores", _scope(results), variants_table(results), truncated_prompts(results), meanings(results)),
        _charts(results),
        differences(results),
        galleries.strips(),
        galleries.best_and_worst(),
        galleries.faces_not_found(),
        galleries.missing(),
        published_table(),
        section("In parts", by_class(results), by_prompt(results)),
        provenance(results),
    ]
    return whole_page(f"Likeness of generated faces: {results.name}", joined(body))


def whole_page(title: str, body: Html) -> str:
    """The body in the template, with its style inside."""
    template = Template((DATA / "page.html").read_text(encoding="utf-8"))
    style = (DATA / "page.css").read_text(encoding="utf-8")
    return template.substitute(title=joined([title]), style=style, body=body)


def _scope(results: Results) -> Html:
    scored = sum(1 for person in results.people if person.held_out)
    images = sum(len(variant.images) for variant in results.variants)
    people = f"{counted(len(results.people), 'person')} ({scored} with photos that were not trained on)"
    sizes = [people, counted(len(results.prompts), "prompt"), counted(len(results.seeds), "seed")]
    sizes += [counted(len(results.variants), "variant"), counted(images, "image")]
    return paragraph(
        f"{', '.join(sizes)}, made by {results.backbone}. "
        f"Faces are compared by {results.faces.name}: its scores cannot be set beside those of another embedder."
    )


def _charts(results: Results) -> Html:
    drawn = [likeness(results), scatter(results, CLIP_T, R_FACESIM)]
    drawn += [against_steps(results, R_FACESIM), against_steps(results, CLIP_T)]
    figures = [element("figure", {}, picture) for picture in drawn if picture]
    if not figures:
        return Html()
    legend = [element("li", {}, named(results, variant)) for variant in results.variants]
    about = "Points are means over people, bars their 95% intervals. Numbers and marks are those of the table."
    return section(
        "Charts",
        paragraph(about),
        element("ul", {"class": "legend"}, *legend),
        element("div", {"class": "charts"}, *figures),
    )


def likeness(results: Results) -> Html | None:
    """Every variant between another person and the same person."""
    rows = []
    for variant in ranked(results, R_FACESIM.key):
        figure, index = variant.figure(R_FACESIM.key), methods(results).index(variant.method)
        assert figure is not None
        label = (f"{results.variants.index(variant) + 1}. {variant.label}",)
        rows.append(Row(label, figure.mean, figure.low, figure.high, colour_class(results, variant), index))
    if not rows:
        return None
    faces = results.faces
    ends = [(faces.impostor_mean, "different people"), (faces.genuine_mean, "same person, real photos")]
    references = [(value, words) for value, words in ends if value is not None]
    return interval_chart("likeness", "R-FaceSim of every variant", "R-FaceSim", rows, references)


def differences(results: Results) -> Html:
    if not results.comparisons:
        return Html()
    about = (
        "Two variants are compared person by person, since people differ more than variants do. A bar that crosses 0 "
        "means that these people do not tell the two apart."
    )
    chart = _difference_chart(results)
    charts = [element("div", {"class": "charts"}, element("figure", {}, chart))] if chart else []
    return section("Differences", paragraph(about), *charts, differences_table(results))


def _difference_chart(results: Results) -> Html | None:
    """R-FaceSim by pairs, the largest first; with many variants, only pairs with the first."""
    variants = {variant.id: variant for variant in results.variants}
    pairs = [found for found in results.comparisons if (found.score, found.misses) == (R_FACESIM.key, "left out")]
    shown = [found if found.mean >= 0 else turned(found) for found in pairs]
    if len(shown) > CHARTED_PAIRS:
        first = ranked(results, R_FACESIM.key)[0].id
        shown = [found for found in shown if first in (found.one, found.other)][:CHARTED_PAIRS]
    rows = [
        Row((variants[found.one].label, f"minus {variants[found.other].label}"), found.mean, found.low, found.high)
        for found in sorted(shown, key=lambda found: -found.mean)
    ]
    if not rows:
        return None
    return interval_chart(
        "differences", "Paired differences of R-FaceSim", "difference of R-FaceSim", rows, [(0.0, "no difference")]
    )
