"""The pictures of a report: people with their images, best and worst, without a face, missing."""

from collections.abc import Mapping

from ...config import UserError
from ..prompts import WORDS, BenchmarkPrompt
from .html import Html, element, folded, joined, note, paragraph, section
from .marks import named
from .pictures import Choice, Extremes, Strip, Thumbnails, shown_people, shown_variants
from .results import ImageRow, Person, Prompt, Results, Variant
from .scores import counted, number

OPEN_PEOPLE = 3  # the others unfold: a page of 16 people is long on a phone
LISTED_PATHS = 30


def filled(prompt: Prompt, person: Person) -> str:
    """The prompt as this person's images were asked for; as the file has it where that cannot be told."""
    text = BenchmarkPrompt(prompt.id, prompt.part, prompt.class_name, prompt.group, prompt.text)
    try:
        return text.filled(person.class_name) if person.class_name in WORDS else prompt.text
    except UserError:
        return prompt.text


class Galleries:
    """The galleries of one page; `held_out` names one held-out photo a person among the thumbnails."""

    def __init__(self, results: Results, choice: Choice, thumbnails: Thumbnails, held_out: Mapping[str, str]):
        self.results, self.choice, self.thumbnails, self.held_out = results, choice, thumbnails, held_out
        self.people = {person.identity: person for person in results.people}
        self.prompts = {prompt.id: prompt for prompt in results.prompts}

    def strips(self) -> Html:
        """Every shown person: the trained photo, one that was not trained on, and images of each variant."""
        if not self.choice.strips:
            return Html()
        opened = [self._strip(strip, index < OPEN_PEOPLE) for index, strip in enumerate(self.choice.strips)]
        intro = (
            "The number under an image is its own likeness to the photos that were not trained on; a dash means that "
            f"no face was found, or that there is nothing to compare with. {self._left_out()}"
        )
        return section("Person by person", paragraph(intro), *opened)

    def best_and_worst(self) -> Html:
        """The images of each variant that are most and least like the person."""
        if not self.choice.extremes:
            return Html()
        blocks = [self._extremes(found) for found in self.choice.extremes]
        return section(
            "Best and worst images", paragraph("By likeness to the photos that were not trained on."), *blocks
        )

    def faces_not_found(self) -> Html:
        """How many images lack a face, and some of them."""
        blocks: list[str] = []
        for variant, shown in self.choice.without_a_face:
            count = sum(image.faces == 0 for image in variant.images)
            more = f", {len(shown)} of them shown" if len(shown) < count else ""
            title = [named(self.results, variant), f": {count} of {len(variant.images)} images{more}"]
            blocks += [element("h3", {}, *title), self._grid([self._image(image, True) for image in shown])]
        text = (
            "R-FaceSim leaves these images out; its second column counts them as 0."
            if blocks
            else "A face was found in every image."
        )
        return section("Faces not found", paragraph(text), *blocks)

    def missing(self) -> Html:
        """What the plan asks for and nobody made."""
        lists = [_missing(variant) for variant in self.results.variants if variant.missing]
        warning = "The scores of these variants are means over the images that are there: read them with care."
        return section("Missing images", paragraph(warning if lists else "No image of the plan is missing."), *lists)

    def _strip(self, strip: Strip, opened: bool) -> Html:
        person = strip.person
        photos = [self._figure(person.reference, f"the trained photo of {person.identity}", "trained on this photo")]
        if key := self.held_out.get(person.identity):
            photos.append(self._figure(key, f"another photo of {person.identity}", "not trained on", "photo"))
        photos[0] = element("div", {"class": "reference"}, photos[0])
        rows: list[Html] = [self._grid(photos)]
        for prompt, cells in strip.rows:
            images = [self._cell(variant, image) for variant, image in cells]
            rows += [element("p", {"class": "prompt"}, f"“{filled(prompt, person)}”"), self._grid(images)]
        return folded(f"{person.identity} ({person.class_name})", *rows, open_=opened)

    def _cell(self, variant: Variant, image: ImageRow | None) -> Html:
        name = named(self.results, variant)
        if image is None:
            return self._figure("", "", joined([name, element("small", {}, "no image")]))
        caption = joined([name, element("small", {}, number(image.held_out, 3))])
        return self._figure(
            image.path, f"{variant.label}: {image.identity}, {image.prompt}, seed {image.seed}", caption
        )

    def _extremes(self, found: Extremes) -> Html:
        rows: list[Html] = [element("h3", {}, named(self.results, found.variant))]
        for title, images in (("best", found.best), ("worst", found.worst)):
            if images:
                rows += [element("p", {"class": "prompt"}, title), self._grid([self._image(image) for image in images])]
        return joined(rows)

    def _image(self, image: ImageRow, with_prompt: bool = False) -> Html:
        score = "no face" if image.faces == 0 else number(image.held_out, 3)
        caption = [image.identity, element("small", {}, score)]
        if with_prompt:
            person, prompt = self.people[image.identity], self.prompts[image.prompt]
            caption = [image.identity, element("small", {}, filled(prompt, person))]
        return self._figure(image.path, f"{image.identity}, {image.prompt}, seed {image.seed}", joined(caption))

    def _figure(self, key: str, words: str, caption: str, kind: str = "") -> Html:
        uri = self.thumbnails.uris.get(key)
        if uri is None:
            picture = element("div", {"class": "absent"}, self.thumbnails.absent.get(key, "no image"))
        else:
            picture = element("img", {"src": uri, "alt": words, "loading": "lazy"})
        return element("figure", {"class": kind} if kind else {}, picture, element("figcaption", {}, caption))

    def _grid(self, figures: list[Html]) -> Html:
        return element("div", {"class": "pictures"}, *figures)

    def _left_out(self) -> str:
        """How much of the run the strips do not show."""
        results = self.results
        total = len({image.path for variant in results.variants for image in variant.images})
        shown = len({image.path for image in self.choice.images})
        people, variants = len(shown_people(results)), len(shown_variants(results))
        parts = [f"{shown} of {total} images are on this page"]
        if people < len(results.people):
            parts.append(f"{people} of {len(results.people)} people")
        if variants < len(results.variants):
            parts.append(f"{variants} of {len(results.variants)} variants")
        return ", ".join(parts) + "; all scores are in images.csv."


def _missing(variant: Variant) -> Html:
    count = len(variant.missing)
    listed = element("ul", {"class": "paths"}, *(element("li", {}, path) for path in variant.missing[:LISTED_PATHS]))
    rest = [note(f"and {count - LISTED_PATHS} more: see results.json.")] if count > LISTED_PATHS else []
    return folded(f"{variant.label}: {counted(count, 'image')} missing", listed, *rest)
