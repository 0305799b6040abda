"""R-FaceSim Evaluate: how like a person are images of any method, against photos that were not trained on."""

import dataclasses
import io as bytes_io
import json
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..metalora.jobs.evaluate.images import PictureReport, evaluate_pictures
from ..metalora.jobs.plots import likeness_plot
from ..metalora.measure import ANALYSERS
from ..metalora.measure.similarity import ImageScore
from ..metalora.store import files
from ..metalora.store.images import to_tensor
from ..metalora.store.pictures import grid
from .bridge import folders
from .pictures import image_of, photos_of
from .running import driven, work
from .sockets import schema

COLUMNS = 5  # of the page of images


class EvaluateLikeness(io.ComfyNode):
    """Scores, a table, a page of images, a plot and results.json."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_Evaluate",
            search_aliases=["face similarity", "likeness", "identity score"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images"),
                io.Image.Input("held_out"),
                io.Image.Input("reference"),
                io.String.Input("prompts", multiline=True, default=""),
                io.Combo.Input("embedder", options=list(ANALYSERS)),
                io.String.Input("name", default="evaluation"),
                io.Boolean.Input("photos_as_they_are", default=False, optional=True),
            ],
            outputs=[
                io.Float.Output(display_name="r_facesim"),
                io.Float.Output(display_name="facesim"),
                io.Float.Output(display_name="detection_rate"),
                io.String.Output(display_name="table"),
                io.Image.Output(display_name="page"),
                io.Image.Output(display_name="plot"),
            ],
        )

    @classmethod
    def execute(cls, **inputs: list[Any]) -> io.NodeOutput:
        with work():
            images, held_out = photos_of(inputs["images"]), photos_of(inputs["held_out"])
            lines = [line for text in inputs["prompts"] for line in text.splitlines() if line.strip()]
            reference, embedder = photos_of(inputs["reference"])[0], inputs["embedder"][0]
            (as_they_are,) = inputs.get("photos_as_they_are", [False])
            job = evaluate_pictures(images, held_out, reference, lines or ["any"], embedder, as_they_are=as_they_are)
            report = driven(job)
            path = folders.numbered_output(folders.FOLDER, inputs["name"][0])
            write_results(report, path.with_name(path.name + ".results.json"))
            return outputs(report, images)


def outputs(report: PictureReport, images: list[Tensor]) -> io.NodeOutput:
    """The node's outputs; a score that does not exist, because no image has a face, is not a number."""
    summary, scores = report.summary, report.scores
    plot = likeness_plot([score.held_out for score in scores], [score.reference for score in scores])
    picture = to_tensor(Image.open(bytes_io.BytesIO(plot)).convert("RGB"))
    return io.NodeOutput(
        summary.r_facesim.get("left out", float("nan")),
        summary.facesim.get("left out", float("nan")),
        summary.detection_rate,
        markdown(report),
        image_of(grid(images, COLUMNS, [caption(score) for score in scores])),
        image_of(picture),
        ui=ui.PreviewText(markdown(report)),
    )


def caption(score: ImageScore) -> str:
    """Under an image."""
    return "no face" if score.held_out is None else f"{score.held_out:.3f} (reference {score.reference:.3f})"


def markdown(report: PictureReport) -> str:
    """The summary in a line, then a row for each image."""
    summary = report.summary
    means = [f"{key} {value:.4f}" for key, value in summary.r_facesim.items()]
    lines = [
        f"R-FaceSim ({', '.join(means)}) of {summary.images} images, faces in {summary.detection_rate:.0%}, "
        f"{summary.embedder}",
        "",
        "| image | prompt | faces | held-out | reference |",
        "|---|---|---|---|---|",
    ]
    for count, score in enumerate(report.scores, 1):
        numbers = ["-" if value is None else f"{value:.4f}" for value in (score.held_out, score.reference)]
        lines.append(f"| {count} | {score.prompt} | {score.faces} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def write_results(report: PictureReport, path: Path) -> None:
    """results.json: the summary and every image."""
    record = {"summary": dataclasses.asdict(report.summary), "images": [vars(score) for score in report.scores]}
    files.write_bytes(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
