"""Scores of pictures that are there, whoever made them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..api import evaluate
from ..cli import Commands, add_settings, settings_of
from ..config import FEWEST_PEOPLE, UserError
from ..jobs import Console, driven
from ..settings import EvaluateSettings, LookSettings

if TYPE_CHECKING:
    from ..jobs.evaluate.images import ImageRow
    from ..jobs.evaluate.whole import WholeReport

SHOWN = 40  # images of the table

EVALUATE_HELP = """\
Scores of pictures, whoever made them.

  metalora evaluate pairs photos                                          what does a similarity mean?
  metalora evaluate images images --photos unseen --reference ada.jpg     how like Ada are the images?
"""

PAIRS_HELP = """\
How an embedder scores photos of the same and of different people: the ceiling and the floor of every similarity.

  metalora evaluate pairs photos                       photos/ada/1.jpg, photos/ada/2.jpg, photos/bob/1.jpg, ...
  metalora evaluate pairs photos --pairs pairs.csv     first,second,same
"""

IMAGES_HELP = """\
R-FaceSim: the mean cosine of generated faces to photos of the person that were NOT trained on, so that copying the
trained photo earns nothing. FaceSim is the same to that photo alone; what it is higher by is copying.

  metalora evaluate images images --photos unseen --reference ada.jpg
  metalora evaluate images images --photos unseen --reference ada.jpg --clip openai --prompts prompts.csv
"""


def add_to(commands: Commands) -> None:
    """Does an embedder tell people apart, and how like a person are images?"""
    kinds = commands.family("evaluate", "score pictures that are there, from any method", EVALUATE_HELP)
    pairs = kinds.add("pairs", "does an embedder tell people apart?", PAIRS_HELP, evaluate_pairs)
    pairs.add_argument("folder", type=Path, help="photos; without --pairs, with one sub-folder a person")
    pairs.add_argument("--pairs", type=Path, metavar="CSV", help="columns first,second,same; paths relative to folder")
    add_settings(pairs, LookSettings)
    images = kinds.add("images", "how like a person are images?", IMAGES_HELP, evaluate_images)
    images.add_argument(
        "images",
        type=Path,
        nargs="?",
        default=argparse.SUPPRESS,
        help="folder of generated images; of several people, one sub-folder each",
    )
    add_settings(images, EvaluateSettings)


def evaluate_pairs(args: argparse.Namespace) -> None:
    """Say how well an embedder tells the people of some photos apart."""
    from ..jobs.evaluate import pairs as job
    from ..store.files import write_json

    own = LookSettings(**settings_of(args, LookSettings))
    pairs = job.evaluate_pairs(args.folder, args.pairs, own.faces, turn=own.turn, as_they_are=own.photos_as_they_are)
    report = driven(pairs)
    test = report.verification
    print(f"{report.embedder} ({report.licence}), {report.photos} photos")
    print(f"same person        {test.genuine_mean:.4f}   mean of {test.genuine} pairs")
    print(f"different people   {test.impostor_mean:.4f}   mean of {test.impostor} pairs")
    print(f"AUC                {test.auc:.4f}")
    print(f"equal error rate   {test.eer:.2%}")
    print(f"no face found in   {', '.join(report.undetected) or 'none'}")
    if own.out is not None:
        write_json(Path(own.out), report)
        print(f"wrote {own.out}")


def evaluate_images(args: argparse.Namespace) -> None:
    """Say how like a person generated images are."""
    given = settings_of(args, EvaluateSettings, ("images",))
    if "images" not in given:
        raise UserError("No folder of images was given.")
    with Console().listening() as console:
        report = evaluate(given.pop("images"), progress=console, **given)
    print_rows(report.rows)
    print(f"{report.embedder}, {report.images} images, a face in {report.detection_rate:.1%} of them")
    print(f"{'images without a face':24}" + "".join(f"{misses:>12}" for misses in report.r_facesim))
    for name, values in (("R-FaceSim", report.r_facesim), ("FaceSim", report.facesim)):
        print(f"{name:24}" + "".join(f"{value:12.4f}" for value in values.values()))
    if report.copying is not None:
        print(f"{'copying (the difference)':24}{report.copying:12.4f}")
    if report.interval is not None:
        low, high, count = report.interval.low, report.interval.high, report.interval.count
        print(f"R-FaceSim lies in {low:.4f} to {high:.4f} with 95% confidence, over {count} people")
    elif report.by_identity:
        print(f"no interval: fewer than {FEWEST_PEOPLE} people have a score, too few for a bootstrap over people")
    if report.without_a_face:
        print(f"no face found in   {', '.join(report.without_a_face)}")
    if report.whole is not None:
        print_whole(report.whole)
    if "out" in given:
        print(f"wrote {given['out']}")


def print_rows(rows: "list[ImageRow]") -> None:
    """A line for each image, as long as there are few."""
    widest = max(len(row.file) for row in rows[:SHOWN])
    print(f"{'image':{widest}}   R-FaceSim     FaceSim")
    for row in rows[:SHOWN]:
        values = [
            f"{value:12.4f}" if value is not None else f"{'no face':>12}" for value in (row.held_out, row.reference)
        ]
        print(f"{row.file:{widest}}{''.join(values)}")
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN} more; --out FILE.json holds all")


def print_whole(report: "WholeReport") -> None:
    """CLIP-I, and CLIP-T where all images have a prompt."""
    for title, score in (("CLIP-T", report.clip_t), ("CLIP-I", report.clip_i)):
        if score is not None:
            sure = f"   {score.interval.low:.2f} to {score.interval.high:.2f}" if score.interval else ""
            print(f"{title:24}{score.mean:12.2f}{sure}   ({report.embedder})")
    if report.clip_t is None:
        print(
            f"no CLIP-T: nothing says what {len(report.without_a_prompt)} images should show, such as "
            f"{report.without_a_prompt[0]}. Give --prompts."
        )
    if report.truncated:
        print(report.truncated)
