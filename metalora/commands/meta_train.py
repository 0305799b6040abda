"""Stage 1: many people to one Meta-Down."""

import argparse
import sys
from pathlib import Path

from ..config import UserError
from ..config_meta_train import META_PRESETS, MetaTrainConfig, meta_train_config, meta_train_options
from ..config_meta_train import preset_of as meta_preset_of
from ..flags import add_options
from .base_model import add_backbone, add_speed, cache_of, chosen_backbone, fast_backbone_of, preset_of
from .choices import add_overwrite
from .parsers import Commands
from .running import driven

HELP = """\
Meta-train a Meta-Down on photos of many people (stage 1): once for a base model, for everyone after.

across photos (the default): a small network makes heads from the face on one photo of a person, and another photo of
the same person judges them. Each person needs at least two photos with a face; any number of people.

  metalora meta-train people --class all --out people.safetensors
  metalora meta-train people --class all --out people.safetensors --backbone flux-dev --gradient-checkpointing

paper: the paper's Algorithm 1. Buckets of people get heads of their own, which are thrown away in the end.

  metalora meta-train people --objective paper --class woman --out woman.safetensors --backbone flux-dev

On several GPUs or machines:

  torchrun --nproc-per-node 8 --max-restarts 3 -m metalora.cli meta-train people ...

people/ada/1.jpg, people/ada/2.jpg, people/bob/1.jpg, ... with captions, if any, in people/ada/1.txt; or a JSONL file,
a line a photo: {"identity": "ada", "path": "ada/1.jpg", "class": "woman", "caption": "..."}, the last two optional.

Beside the result, the folder <out without its ending> holds checkpoints, steps.csv, validation.csv and progress.png.
Ctrl-C, or a crash, loses nothing or little: the same command goes on from the last checkpoint.
"""


def add_to(commands: Commands) -> None:
    """One command that makes what `personalize` stands on."""
    parser = commands.add("meta-train", "photos of many people -> Meta-Down (stage 1)", HELP, meta_train)
    parser.add_argument("people", type=Path, help="a folder with one sub-folder a person, or a .jsonl manifest")
    parser.add_argument("--out", type=Path, required=True, help="the Meta-Down file to write")
    parser.add_argument("--preset", choices=tuple(META_PRESETS), help="settings to start from (default: by base model)")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's logs too")
    add_overwrite(parser)
    add_options(parser, MetaTrainConfig, "training (defaults: preset flux)")
    add_backbone(parser)
    add_speed(parser)


def meta_train(args: argparse.Namespace) -> None:
    """Train a Meta-Down, in this process or as one of torchrun's."""
    import os

    from ..jobs import run
    from ..jobs.meta_train import meta_train_people
    from ..jobs.meta_train.memory import check_memory
    from ..jobs.processes import joined_processes, process_index
    from ..store.identities import skipped_of

    given = {name: value for name, value in vars(args).items() if name in meta_train_options()}
    preset = args.preset or meta_preset_of(preset_of(args), given.get("objective"))
    config = meta_train_config(preset, **given)
    if "LOCAL_RANK" in os.environ and args.device == "auto":
        args.device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda_is_here() else "cpu"
    if args.cuda_graphs:
        raise UserError("meta-train cannot use --cuda-graphs: each step wears heads in another place. Leave it out.")
    backbone = fast_backbone_of(args)
    with joined_processes(config.batch, backbone.device) as world:
        check_memory(backbone, config, world.size)
        if process_index() == 0 and (beside := skipped_of(args.people)):
            print(beside, file=sys.stderr)
        job = meta_train_people(
            backbone,
            args.people,
            args.out,
            config,
            cache=cache_of(args),
            world=world,
            tensorboard=args.tensorboard,
            overwrite=args.overwrite,
        )
        result = driven(job) if process_index() == 0 else run(job)
    if process_index() == 0:
        if result.history["validated"]:
            print(outcome(result.history, config))
        print(f"wrote {result.meta_down}; look at {result.folder / 'progress.png'}")
        who = "person" if config.class_name == "all" else config.class_name  # captions say what one is
        flags = f"--meta-down {args.out} --class {who}"
        print(f"next:  metalora personalize photo.jpg {flags}{chosen_backbone(args)}")


def outcome(history: dict[str, list[float]], config: MetaTrainConfig) -> str:
    """What people who were held out gain, in one line."""
    if config.objective == "paper":
        first, last = (history["before"][at] - history["after"][at] for at in (0, -1))
        return (
            f"held-out people gain from {config.validation_steps} steps on one photo: {first:.4f} at the start, "
            f"{last:.4f} now"
        )
    own, another, none = (history[name][-1] for name in ("own_face", "another_face", "no_heads"))
    return (
        f"loss on unseen people's other photos: {own:.4f} with heads from their own face, {another:.4f} from "
        f"another's, {none:.4f} without"
    )


def cuda_is_here() -> bool:
    """Whether each process can have a GPU of its own."""
    import os

    import torch

    wanted, found = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < found < wanted:
        raise UserError(f"{wanted} processes on this machine but {found} GPUs: start as many as there are GPUs.")
    return found > 0
