"""The nodes of one person's adapter: Train Meta-LoRA Personalization, Load Adapter, Merge to LoRA File."""

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..metalora.backbones.architecture import KEY_FORMATS, PRESETS, format_lora
from ..metalora.backbones.pipeline_folder import fingerprint_of_file
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
from .sockets import AdapterSocket, MetaDown, MetaDownSocket, schema, widget, widgets

OPTIONS = ("trigger", "caption", "batch", "time_sampling", "weight_decay", "max_grad_norm", "gradient_checkpointing")
LATEST: dict[str, TrainedAdapter] = {}  # so that another `name` or `preview` does not train again
LATER_OPTIONS = ("background_weight", "time_shift", "ema_steps")
NEWEST_OPTIONS = ("optimizer", "lr_scheduler", "lr_warmup_steps", "lora_every", "loras_kept")


class TrainPersonalization(io.ComfyNode):
    """Fits heads on a Meta-Down, or a plain LoRA, to crops of one person."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_TrainPersonalization",
            search_aliases=["train lora", "lora trainer", "dreambooth", "personalize", "face lora"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.Image.Input("crops"),
                io.String.Input("name", default="person"),
                *widgets(PersonalizeConfig, "class_name", "steps", "rank", "learning_rate", "seed"),
                widget(PersonalizeConfig, "sites", "all", tuple(PRESETS)),
                *widgets(PersonalizeConfig, *OPTIONS),
                io.Boolean.Input("flips", default=True),
                *preview_inputs(every=50),
                MetaDownSocket.Input("meta_down", optional=True),
                io.Mask.Input("heads", optional=True),
                *widgets(PersonalizeConfig, *LATER_OPTIONS, *NEWEST_OPTIONS, optional=True),
                cfg_input(),
                io.String.Input("captions", default="", optional=True, force_input=True),
                AdapterSocket.Input("adapter", optional=True),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter"),
                io.LoraModel.Output(display_name="lora"),
                io.Model.Output(display_name="personal_model"),
                io.LossMap.Output(display_name="loss"),
                io.Image.Output(display_name="loss_plot"),
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
            crops, cache = photos_of(inputs["crops"]), Cache(default_folder())
            backbone = ComfyBackbone(model, clip, vae)
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
            seen: dict[str, Any] = {"label": config.method, "caption": config.prompt, "count": 1, "cfg": cfg}
            trained = driven(job, preview_of(preview, every, backbone, **seen, resolution=resolution, cache=cache))
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
            "MetaLoRA_LoadAdapter",
            search_aliases=["resume training", "continue training"],
            inputs=[io.Combo.Input("file", options=folders.adapter_files())],
            outputs=[
                AdapterSocket.Output(display_name="adapter"),
                io.LoraModel.Output(display_name="lora"),
                io.String.Output(display_name="about"),
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
            "MetaLoRA_MergeToLora",
            search_aliases=["save lora", "export lora"],
            is_output_node=True,
            inputs=[
                AdapterSocket.Input("adapter"),
                io.String.Input("name", default="person"),
                io.Combo.Input("key_format", options=list(KEY_FORMATS)),
            ],
            outputs=[
                io.LoraModel.Output(display_name="lora"),
                io.String.Output(display_name="file"),
            ],
        )

    @classmethod
    def execute(cls, adapter: TrainedAdapter, name: str, key_format: str) -> io.NodeOutput:
        with work():
            path = named(folders.numbered_output("loras", name), ".safetensors")
            lora = fold_all(adapter.adapters)
            save_lora(path, lora, key_format, adapter.architecture, adapter.metadata)
            return io.NodeOutput(for_the_core(adapter), str(path), ui=ui.PreviewText(str(path)))
