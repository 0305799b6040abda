"""The page and the tables of a benchmark run."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...config import Phase, Step, UserError
from ...store.files import write_bytes
from ...store.manifest import read_manifest
from ...store.report.page import report_page
from ...store.report.pictures import choose, read_small, thumbnails
from ...store.report.results import Results, read_results
from ...store.report.scores import images_csv, variants_csv
from .. import Job
from .plan_file import located, read_plan


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    images: Path
    variants: Path
    size: int  # of the page, bytes
    shown: int  # pictures
    absent: int  # pictures that the page would show, and which are not there or not the scored ones


def benchmark_report(run: Path, out: Path | None = None) -> Job[Report]:
    """Write report.html, images.csv and variants.csv of a finished run, into its folder or into `out`."""
    results = read_results(run)
    out = out or results.folder
    choice = choose(results)
    held_out = held_out_photos(results)
    shown = [image.path for image in choice.images]
    shown += [strip.person.reference for strip in choice.strips]
    shown += [f"held-out/{strip.person.identity}" for strip in choice.strips if strip.person.identity in held_out]
    hashes: dict[str, str | None] = {image.path: image.sha256 for image in choice.images}
    yield Phase(f"{results.folder}: {len(results.variants)} variants, {len(set(shown))} pictures for the page")
    pictures: dict[str, Image.Image | str] = {}
    for index, key in enumerate(dict.fromkeys(shown), 1):
        file = held_out[key.removeprefix("held-out/")] if key.startswith("held-out/") else results.folder / key
        pictures[key] = read_small(file, hashes.get(key))
        yield Step(index, len(set(shown)))
    small = thumbnails(pictures, shown)
    page = report_page(results, choice, small, {identity: f"held-out/{identity}" for identity in held_out})
    data = page.encode("utf-8")
    write_bytes(out / "images.csv", images_csv(results))
    write_bytes(out / "variants.csv", variants_csv(results))
    write_bytes(out / "report.html", data)
    return Report(
        out / "report.html", out / "images.csv", out / "variants.csv", len(data), len(small.uris), len(small.absent)
    )


def held_out_photos(results: Results) -> dict[str, Path]:
    """One photo a person that was not trained on; empty where the plan's manifest is elsewhere, or another now."""
    try:
        manifest = read_manifest(Path(located(read_plan(results.folder).manifest, results.folder)), look=False)
    except UserError:  # this costs the page one picture a person, not the page
        return {}
    if manifest.sha256 != results.manifest_sha256:
        return {}
    return {person.name: person.held_out[0].path for person in manifest.people if person.held_out}
