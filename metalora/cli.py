"""The command `metalora`: settings in, one job, where the result is, what to type next."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

from .config import CropConfig, GenerateConfig, PersonalizeConfig, UserError
from .console import Console
from .flags import knobs_from
from .jobs import Job, Result, run
from .parser import SINGLE_FILES, make_parser

DEFAULT_BACKBONE = "tiny"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, 1 after an error the user can mend, 2 for wrong usage, 130 after Ctrl-C."""
    args = make_parser().parse_args(arguments)
    try:
        return COMMANDS[args.command](args) or 0
    except UserError as error:
        print(f"metalora: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. Repeat the same command to go on from what was saved.", file=sys.stderr)
        return 130


def driven(job: Job[Result]) -> Result:
    """Run a job with its progress on the terminal."""
    with Console().listening() as console:
        return run(job, console)


def crops_command(args: argparse.Namespace) -> None:
    """Write the training crops of a photo and a page with all of them."""
    from .jobs.crops import write_crops

    config = knobs_from(args, CropConfig, args.backbone)
    out = args.out or Path(f"{args.photo.stem}-crops")
    result = driven(write_crops(args.photo, out, config, embedder=args.faces))
    left_out = len(result.planned.left_out)
    if left_out:
        print(f"{left_out} crops are left out: they would be enlarged more than {config.max_upscale:g} times")
    print(f"wrote {len(result.planned.crops)} crops and {result.sheet}")
    face = "" if config.face == "only" else f" --face {config.face}"
    print(f"next:  metalora personalize {quote(str(args.photo))}{face} --class woman --method lora-crops")


def personalize_command(args: argparse.Namespace) -> None:
    """Fit one person's photos; write a plain LoRA."""
    from .jobs.personalize import personalize_photos

    config, crop_config = (
        knobs_from(args, PersonalizeConfig, preset_of(args)),
        knobs_from(args, CropConfig, preset_of(args)),
    )
    out = args.out or Path(f"{args.photos[0].stem}.safetensors")
    result = driven(
        personalize_photos(
            backbone_of(args),
            args.photos,
            out,
            config,
            crop_config,
            meta_down=args.meta_down,
            cache=cache_of(args),
            embedder=args.faces,
            spelling=args.spelling,
            overwrite=args.overwrite,
        )
    )
    before, after = result.training.validation
    print(f"validation loss {before:.4f} -> {after:.4f}, {result.training.seconds_per_step:.3f} s a step")
    print(f"wrote {result.lora} (the LoRA), {result.adapter}, {result.curve}")
    example = f"--lora {quote(str(result.lora))} --compare --prompt {quote(config.prompt)}"
    print(f"next:  metalora generate{chosen_backbone(args)} {example}")


def generate_command(args: argparse.Namespace) -> None:
    """Make images of prompts, with a LoRA, without, or both."""
    from .jobs.generate import generate_images
    from .jobs.sheets import write_comparison

    prompts = list(args.prompt) + (read_prompts(args.prompts) if args.prompts else [])
    config = knobs_from(args, GenerateConfig, preset_of(args))
    images = driven(
        generate_images(
            backbone_of(args),
            prompts,
            args.out,
            config,
            lora=args.lora,
            compare=args.compare,
            cache=cache_of(args),
            overwrite=args.overwrite,
        )
    )
    print(f"wrote {len(images)} images to {args.out}")
    if len(images) > 1:
        print(f"look:  {write_comparison(images, args.out / 'sheet.png')}")


def merge_command(args: argparse.Namespace) -> None:
    """Turn an adapter (three matrices a layer) into an ordinary LoRA (two)."""
    from .jobs.lora import merge_adapter

    out = args.out or args.adapter.with_name(
        args.adapter.name.removesuffix(".safetensors").removesuffix(".adapter") + ".safetensors"
    )
    print(f"wrote {driven(merge_adapter(args.adapter, out, args.spelling, args.overwrite))}")


def evaluate_pairs_command(args: argparse.Namespace) -> None:
    """Say how well an embedder tells the people of some photos apart."""
    from .jobs.evaluate_pairs import evaluate_pairs

    report = driven(evaluate_pairs(args.folder, args.pairs, args.faces))
    test = report.verification
    print(f"{report.embedder} ({report.licence}), {report.photos} photos")
    print(f"same person        {test.genuine_mean:.4f}   mean of {test.genuine} pairs")
    print(f"different people   {test.impostor_mean:.4f}   mean of {test.impostor} pairs")
    print(f"AUC                {test.auc:.4f}")
    print(f"equal error rate   {test.eer:.2%}")
    print(f"no face found in   {', '.join(report.undetected) or 'none'}")
    written(report, args.out)


def evaluate_images_command(args: argparse.Namespace) -> None:
    """Say how like a person generated images are."""
    from .jobs.evaluate_images import evaluate_images

    report = driven(evaluate_images(args.images, args.photos, args.reference, args.faces))
    print(f"{report.embedder}, {report.images} images, a face in {report.detection_rate:.1%} of them")
    print(f"{'images without a face':24}" + "".join(f"{misses:>12}" for misses in report.r_facesim))
    for name, values in (("R-FaceSim", report.r_facesim), ("FaceSim", report.facesim)):
        print(f"{name:24}" + "".join(f"{value:12.4f}" for value in values.values()))
    if report.copying is not None:
        print(f"{'copying (the difference)':24}{report.copying:12.4f}")
    if report.interval is not None:
        low, high, count = report.interval.low, report.interval.high, report.interval.count
        print(f"R-FaceSim lies in {low:.4f} to {high:.4f} with 95% confidence, over {count} people")
    if report.without_a_face:
        print(f"no face found in   {', '.join(report.without_a_face)}")
    written(report, args.out)


def written(report: object, path: Path | None) -> None:
    """All numbers of a report as JSON, where a file was asked for."""
    from .store.files import write_json

    if path is not None:
        write_json(path, report)
        print(f"wrote {path}")


def info_command(args: argparse.Namespace) -> None:
    """Say what files are."""
    from .jobs.info import describe

    for index, path in enumerate(args.files):
        print(("\n" if index else "") + describe(path))


def doctor_command(args: argparse.Namespace) -> int:
    """Look at the machine, the packages and the weights; say whether a job fits. 1 if something is in the way."""
    from .jobs.doctor import examine

    config, crop_config = (
        knobs_from(args, PersonalizeConfig, preset_of(args)),
        knobs_from(args, CropConfig, preset_of(args)),
    )
    findings = examine(backbone_of(args), config, crop_config, cache_of(args).folder)
    print("\n".join(str(finding) for finding in findings))
    return 1 if any(finding.bad for finding in findings) else 0


def demo_command(args: argparse.Namespace) -> None:
    """The whole path on a portrait that comes along."""
    from .jobs.demo import demonstrate

    result = driven(demonstrate(backbone_of(args), args.out, cache_of(args), preset_of(args)))
    print(result.summary)
    print(f"look:  {result.sheet}")


def backbone_of(args: argparse.Namespace):  # type: ignore[no-untyped-def]  # imported late: --help stays fast
    """The base model that the flags name; nothing is loaded yet."""
    from .backbones.load import load_backbone

    files = single_files_of(args)
    if files and args.backbone:
        given = ", ".join("--" + part.replace("_", "-") for part in files)
        raise UserError(f"--backbone {args.backbone} and {given} name two base models: leave one out.")
    name = args.backbone or DEFAULT_BACKBONE
    return load_backbone(name, device=args.device, precision=args.precision, single_files=files)


def single_files_of(args: argparse.Namespace) -> dict[str, Path]:
    """The single files that were given, by part."""
    return {part: path for part in SINGLE_FILES if (path := getattr(args, part)) is not None}


def preset_of(args: argparse.Namespace) -> str:
    """Whose defaults apply: single files are FLUX.1's, so the paper's."""
    return "flux-dev" if single_files_of(args) else args.backbone or DEFAULT_BACKBONE


def cache_of(args: argparse.Namespace):  # type: ignore[no-untyped-def]  # imported late: --help stays fast
    """The cache folder that the flags or the system name."""
    from .store.cache import Cache, default_folder

    return Cache(args.cache or default_folder())


def chosen_backbone(args: argparse.Namespace) -> str:
    """The flags that name the same base in the next command."""
    if args.backbone:
        return f" --backbone {quote(args.backbone)}"
    return "".join(f" --{part.replace('_', '-')} {quote(str(path))}" for part, path in single_files_of(args).items())


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that start with # are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "crops": crops_command,
    "personalize": personalize_command,
    "generate": generate_command,
    "merge": merge_command,
    "evaluate pairs": evaluate_pairs_command,
    "evaluate images": evaluate_images_command,
    "info": info_command,
    "doctor": doctor_command,
    "demo": demo_command,
}

if __name__ == "__main__":
    sys.exit(main())
