"""The nodes of one person's adapter: Train Meta-LoRA Personalization, Load Adapter, Merge to LoRA File."""

import dataclasses
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..metalora.backbones.architecture import KEY_FORMATS, PRESETS, format_lora
from ..metalora.backbones.weight_files import fingerprint_of_file
from ..metalora.config import PersonalizeConfig, UserError
from ..metalora.jobs import save_loss_curve
from ..metalora.jobs.info import describe
from ..metalora.jobs.lora import read_adapter
from ..metalora.jobs.personalize_pictures import (
    TrainedAdapter,
    as_it_is,
    as_started,
    personalize_pictures,
    resolution_of,
)
from ..metalora.jobs.training_files import save_lora
from ..metalora.method.adapter import fold_all
from ..metalora.store.cache import Cache, default_folder
from ..metalora.store.images import read_photo
from .backbone import ComfyBackbone
from .bridge import folders, models
from .memory import make_room
from .pictures import image_of, masks_of, photos_of
from .previews import cfg_input, preview_inputs, preview_of
from .running import driven, work
from .sockets import CATEGORY, AdapterSocket, MetaDown, MetaDownSocket, schema, seldom, widget, widgets

OPTIONS = ("trigger", "caption", "batch", "time_sampling", "weight_decay", "max_grad_norm", "gradient_checkpointing")
LATEST: dict[str, TrainedAdapter] = {}  # so that another `name` or `preview` does not train again
LATER_OPTIONS = ("background_weight", "time_shift", "ema_steps")
NEWEST_OPTIONS = ("optimizer", "lr_scheduler", "lr_warmup_steps", "lora_every", "loras_kept")


class TrainPersonalization(io.ComfyNode):
    """Fits heads on a Meta-Down, or a plain LoRA, to crops of one person."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sites = next(field for field in dataclasses.fields(PersonalizeConfig) if field.name == "sites")
        return schema(
            search_aliases=["train lora", "lora trainer", "dreambooth", "personalize", "face lora"],
            node_id="MetaLoRA_TrainPersonalization",
            display_name="Train Meta-LoRA Personalization",
            category=CATEGORY,
            description="Learns one person from crops of one photo. With a Meta-Down this is Meta-LoRA; without one "
            "it trains a plain LoRA in the same loop. Cancel keeps what was learned: queue the same prompt to go on.",
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any base that ComfyUI can train through, in any precision; it is not changed."
                ),
                io.Clip.Input("clip", tooltip="The text encoders that belong to it."),
                io.Vae.Input("vae", tooltip="The autoencoder that belongs to it."),
                io.Image.Input("crops", tooltip="From Augment Face Crops. Other images are trained on as they are."),
                io.String.Input("name", default="person", tooltip="What the files are called."),
                *widgets(PersonalizeConfig, "class_name", "steps", "rank", "learning_rate", "seed"),
                widget(sites, "all", tuple(PRESETS)),
                *widgets(PersonalizeConfig, *OPTIONS),
                io.Boolean.Input("flips", default=True, tooltip="Train on mirrored crops too.", **seldom("flips")),
                *preview_inputs(every=50),
                MetaDownSocket.Input("meta_down", optional=True, tooltip="None: a plain LoRA is trained."),
                io.Mask.Input("heads", optional=True, tooltip="From Augment Face Crops, or masks of your own."),
                *widgets(PersonalizeConfig, *LATER_OPTIONS, *NEWEST_OPTIONS, optional=True),
                cfg_input(),
                io.String.Input(
                    "captions",
                    default="",
                    optional=True,
                    force_input=True,
                    tooltip="What each crop shows, from Augment Face Crops; empty ones are the caption below.",
                ),
                AdapterSocket.Input(
                    "adapter",
                    optional=True,
                    tooltip="From Load Adapter or another training: what to go on from, with its rank and sites.",
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For Merge to LoRA File."),
                io.LoraModel.Output(
                    display_name="lora", tooltip="For the core's Load LoRA Model and Save LoRA Weights."
                ),
                io.Model.Output(
                    display_name="personal_model", tooltip="The model with the adapter on it, ready to sample."
                ),
                io.LossMap.Output(display_name="loss", tooltip="For the core's Plot Loss Graph."),
                io.Image.Output(display_name="loss_plot", tooltip="The loss curve."),
            ],
        )

    @classmethod
    def execute(cls, **inputs: list[Any]) -> io.NodeOutput:
        given = {key: values[0] for key, values in inputs.items()}  # all but the crops come as lists of one
        meta_down: MetaDown | None = given.pop("meta_down", None)
        start: TrainedAdapter | None = given.pop("adapter", None)
        model, clip, vae = (given.pop(key) for key in ("model", "clip", "vae"))
        name, flips, preview, every = (given.pop(key) for key in ("name", "flips", "preview", "preview_every"))
        cfg = given.pop("preview_cfg", 0.0)
        for key in ("crops", "heads", "captions"):
            given.pop(key, None)
        with work():
            config = PersonalizeConfig(method="meta-lora" if meta_down else "lora", **given)
            if start and meta_down:
                raise UserError("meta_down and adapter are both connected, and an adapter has its own: disconnect one.")
            config = as_started(config, start) if start else config
            crops, backbone, cache = (
                photos_of(inputs["crops"]),
                ComfyBackbone(model, clip, vae),
                Cache(default_folder()),
            )
            resolution = resolution_of([as_it_is(crop, backbone.multiple) for crop in crops])
            make_room(backbone, config, resolution)
            out = folders.numbered_output(folders.FOLDER, name)
            job = personalize_pictures(
                backbone,
                crops,
                named(out, ".adapter.safetensors"),
                folders.output_folder(folders.FOLDER, "unfinished"),
                config,
                flips=flips,
                meta_down=meta_down.source if meta_down else None,
                cache=cache,
                heads=masks_of(inputs.get("heads", [])),
                captions=inputs.get("captions", []),
                start=start,
                loras=named(folders.output_folder("loras", out.name), ".safetensors"),
                latest=LATEST,
            )
            seen: dict[str, Any] = {
                "label": config.method,
                "caption": config.prompt,
                "resolution": resolution,
                "count": 1,
                "cfg": cfg,
            }
            trained = driven(job, preview_of(preview, every, backbone, **seen, cache=cache))
            assert trained.training is not None
            losses = trained.training.losses
            save_loss_curve(named(out, ".loss.png"), {config.method: losses})
            return finished(trained, losses, model, named(out, ".loss.png"))


def finished(trained: TrainedAdapter, losses: list[float], model: Any, plot: Path) -> io.NodeOutput:
    """The node's outputs; `plot` is the loss curve's file."""
    for weight in trained.adapters.parameters():
        weight.requires_grad_(False)
    lora = for_the_core(trained)
    if unmatched := models.unmatched_keys(model, lora):
        raise UserError(
            f"ComfyUI's own loader does not know {len(unmatched)} keys of this LoRA, such as {unmatched[0]}."
        )
    return io.NodeOutput(
        trained,
        lora,
        models.with_lora(model, lora),
        {"loss": losses},
        image_of(read_photo(plot)),
    )


def for_the_core(trained: TrainedAdapter) -> dict[str, Tensor]:
    """A LORA_MODEL, in the key format that the core's own nodes write where a base has one."""
    key_format = "bfl" if trained.architecture.fused else "diffusers"
    return format_lora(fold_all(trained.adapters), key_format, trained.architecture)


def named(path: Path, ending: str) -> Path:
    """The path with an ending, whatever dots its name has."""
    return path.with_name(path.name + ending)


class LoadAdapter(io.ComfyNode):
    """A finished training's file as a wire."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["resume training", "continue training"],
            node_id="MetaLoRA_LoadAdapter",
            display_name="Load Adapter",
            category=CATEGORY,
            description="What an earlier training learned, from output/meta_lora: merge it again, or connect it to "
            "Train Meta-LoRA Personalization and go on from it, with other photos or settings if you like.",
            inputs=[io.Combo.Input("file", options=folders.adapter_files(), tooltip="Press R to read the list again.")],
            outputs=[
                AdapterSocket.Output(
                    display_name="adapter", tooltip="For Merge to LoRA File, or to train on from in the Train node."
                ),
                io.LoraModel.Output(display_name="lora", tooltip="For the core's Load LoRA Model."),
                io.String.Output(display_name="about", tooltip="What the file says of itself."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return fingerprint_of_file(folders.adapter_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        with work():
            path = folders.adapter_path(file)
            adapter = TrainedAdapter(*read_adapter(path), path)
            return io.NodeOutput(adapter, for_the_core(adapter), describe(path))


class MergeToLora(io.ComfyNode):
    """Three matrices a layer become two: an ordinary LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["save lora", "export lora"],
            node_id="MetaLoRA_MergeToLora",
            display_name="Merge to LoRA File",
            category=CATEGORY,
            description="Folds an adapter into an ordinary LoRA and writes it to output/loras, where Load LoRA finds "
            "it. The result is exact up to rounding.",
            is_output_node=True,
            inputs=[
                AdapterSocket.Input("adapter", tooltip="From Train Meta-LoRA Personalization or Load Adapter."),
                io.String.Input("name", default="person", tooltip="What the file is called; a number is added."),
                io.Combo.Input(
                    "key_format",
                    options=list(KEY_FORMATS),
                    tooltip="How keys are named. All three load in ComfyUI; diffusers also in diffusers, at rank 1.",
                ),
            ],
            outputs=[
                io.LoraModel.Output(display_name="lora", tooltip="For the core's Load LoRA Model."),
                io.String.Output(display_name="file", tooltip="Where the file was written."),
            ],
        )

    @classmethod
    def execute(cls, adapter: TrainedAdapter, name: str, key_format: str) -> io.NodeOutput:
        with work():
            path = named(folders.numbered_output("loras", name), ".safetensors")
            lora = fold_all(adapter.adapters)
            save_lora(path, lora, key_format, adapter.architecture, adapter.metadata)
            return io.NodeOutput(for_the_core(adapter), str(path), ui=ui.PreviewText(str(path)))
