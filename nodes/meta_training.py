"""Meta-Train Meta-Down: stage 1 in ComfyUI, on a folder of people."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..metalora.config import UserError
from ..metalora.config_meta_train import META_PRESETS, MetaTrainConfig, meta_train_config
from ..metalora.jobs.info import fingerprint_of_stats
from ..metalora.jobs.meta_train import meta_train_people
from ..metalora.jobs.meta_train.people import ALL
from ..metalora.store.cache import Cache, default_folder
from ..metalora.store.images import read_photo
from .backbone import ComfyBackbone
from .bridge import folders
from .memory import make_room_for_stage_one
from .pictures import image_of
from .previews import preview_inputs, preview_of
from .running import driven, work
from .sockets import MetaDown, MetaDownSocket, schema, widgets

PRESETS_OWN = ("steps", "bucket_steps", "batch", "resolution", "validation_people")  # 0: as the preset has it
WARMUP_SHARE = 0.4  # of a bucket (paper)


class MetaTrain(io.ComfyNode):
    """Many people -> the half of a LoRA that they share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_MetaTrain",
            is_output_node=True,
            shown=["batch"],
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.String.Input("dataset", default=""),
                io.String.Input("name", default="woman"),
                io.Combo.Input("preset", options=list(META_PRESETS)),
                *map(number, PRESETS_OWN[:-1]),
                *widgets(MetaTrainConfig, "class_name", "gradient_checkpointing"),
                number(PRESETS_OWN[-1]),
                *widgets(MetaTrainConfig, "seed"),
                *preview_inputs(every=250),
            ],
            outputs=[
                MetaDownSocket.Output(display_name="meta_down"),
                io.Image.Output(display_name="progress"),
                io.String.Output(display_name="file"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset: str, **_other: Any) -> str:
        source = folders.allowed_path(dataset)
        return fingerprint_of_stats(source.rglob("*") if source.is_dir() else [source])

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        dataset: str,
        name: str,
        preset: str,
        preview: str,
        preview_every: int,
        **options: Any,
    ) -> io.NodeOutput:
        if not dataset.strip():
            raise UserError("dataset is empty: name a folder with a sub-folder of photos for each person.")
        given = {key: value for key, value in options.items() if key not in PRESETS_OWN or value}
        if "bucket_steps" in given:
            given["warmup_steps"] = int(WARMUP_SHARE * given["bucket_steps"])
        out = folders.output_folder(folders.FOLDER, folders.MADE, f"{folders.plain_name(name)}.safetensors")
        if out.exists():
            raise UserError(f"{out} exists already: use it through Load Meta-Down, or choose another name.")
        with work():
            config = meta_train_config(preset, given)
            backbone = ComfyBackbone(model, clip, vae)
            make_room_for_stage_one(backbone, config)
            cache = Cache(default_folder())
            job = meta_train_people(backbone, folders.allowed_path(dataset), out, config, cache=cache)
            caption = config.caption_of("person" if config.class_name == ALL else config.class_name)
            seen: dict[str, Any] = {"label": "stage 1", "caption": caption, "count": config.batch}
            shown = preview_of(preview, preview_every, backbone, **seen, resolution=config.resolution, cache=cache)
            trained = driven(job, shown)
            plot = trained.folder / "progress.png"  # not there where it could not be drawn
            progress = image_of(read_photo(plot) if plot.is_file() else torch.ones(3, 64, 64))
            return io.NodeOutput(MetaDown(str(out)), progress, str(out), ui=ui.PreviewText(str(out)))


def number(key: str) -> Any:
    """The widget of an option that a preset decides."""
    return io.Int.Input(key, default=0, min=0, max=10_000_000)
