"""Meta-Down files: what one is, and where else than from stage 1 it can come from."""

import argparse
from pathlib import Path

from .base_model import add_backbone, backbone_of, cache_of, chosen_backbone, preset_of
from .choices import add_overwrite
from .parsers import Commands
from .running import driven

SITES_SHOWN = 5

FAMILY_HELP = """\
Meta-Downs without meta-training.

  metalora meta-down inspect woman.safetensors
  metalora meta-down compare woman.safetensors other.safetensors --people people --class woman
  metalora meta-down import released.safetensors --class woman --out woman.safetensors --backbone flux-dev
  metalora meta-down from-loras loras --class woman --out woman.safetensors --backbone flux-dev
"""

IMPORT_HELP = """\
Take the shared down layer out of any LoRA-like file: diffusers, PEFT, kohya or Black Forest Labs' key names, q, k and v
split or fused, two matrices a layer or three. Says what was taken and what was left.
"""

LORAS_HELP = """\
Distill ordinary LoRAs of people into a Meta-Down: at each layer the directions of the input that their updates share
most. The LoRAs may be of any maker, spelling and rank, and must be of the same base model; a file that cannot be read
is named and skipped. All are held in memory.
"""

COMPARE_HELP = """\
What heads on each Meta-Down, and on a random one, see of people's first gradients, before anyone is personalized. Two
looks at a person, at other photos with other noise, agree in what is theirs or everyone's; the rest is chance.

  metalora meta-down compare a.safetensors b.safetensors --people validation/manifest.jsonl --class woman

held: the share of a gradient that lies in the Meta-Down's rows. Of it theirs: what this person has and nobody else; of
it everyone's. Inputs that are strong along the rows make heads quick, and let them change everything else as well. The
people should be none that a Meta-Down was made from; a folder with one sub-folder a person, or a .jsonl manifest, as
for meta-train. --by-site writes the same of every layer, which takes dozens of people to be more than chance.
"""


def add_to(commands: Commands) -> None:
    """Look into, compare, import, distill."""
    kinds = commands.family("meta-down", "look into, compare, import or distill Meta-Downs", FAMILY_HELP)
    look = kinds.add("inspect", "what is in a Meta-Down?", "What is in a Meta-Down file, kind by kind.", inspect)
    look.add_argument("file", type=Path, help="a Meta-Down file")
    rate = kinds.add("compare", "how much of new people does a Meta-Down hold?", COMPARE_HELP, compare)
    rate.add_argument("files", type=Path, nargs="+", metavar="FILE", help="Meta-Down files of one rank")
    rate.add_argument("--people", type=Path, required=True, help="a folder of people or a .jsonl manifest")
    rate.add_argument("--class", dest="domain", default="person", help="look at people of this class (default person)")
    rate.add_argument(
        "--background-weight",
        type=float,
        default=1.0,
        metavar="X",
        help="what the loss counts around the head; give what people will be personalized with (default 1)",
    )
    rate.add_argument("--by-site", type=Path, metavar="CSV", help="write the same of every layer: where is the person?")
    add_backbone(rate)
    take = kinds.add("import", "take the down layer out of any LoRA-like file", IMPORT_HELP, import_file)
    take.add_argument("file", type=Path, help="the .safetensors file")
    take.add_argument(
        "--sites", default="auto", choices=("auto", "all", "attention"), help="what to take (default: what is there)"
    )
    distill = kinds.add("from-loras", "distill ordinary LoRAs of people", LORAS_HELP, from_loras)
    distill.add_argument("folder", type=Path, help="a folder of .safetensors LoRAs")
    distill.add_argument("--meta-rank", type=int, default=16, metavar="N", help="r1, directions to keep (default 16)")
    distill.add_argument("--first", type=int, metavar="N", help="only the first so many LoRAs, by name (default: all)")
    for parser in (take, distill):
        parser.add_argument("--out", type=Path, required=True, help="the Meta-Down file to write")
        parser.add_argument("--class", dest="domain", default="person", help="the class it is for (default person)")
        add_overwrite(parser)
        add_backbone(parser)


def inspect(args: argparse.Namespace) -> None:
    """Say what a Meta-Down holds."""
    from ..jobs.info import describe
    from ..jobs.meta_down_sources import inspect_meta_down

    table = inspect_meta_down(args.file)  # first: it refuses other files
    print(describe(args.file))
    print(table)


def compare(args: argparse.Namespace) -> None:
    """Look at new people's first gradients."""
    from ..config_meta_train import meta_train_config
    from ..jobs.held_gradients import held_gradients, save_by_site
    from ..store.files import check_writable

    if args.by_site:
        check_writable(args.by_site)
    preset = "miniature" if preset_of(args) in ("tiny", "miniature") else "paper"
    weight = args.background_weight
    config = meta_train_config(preset, class_name=args.domain, validation_people=0, background_weight=weight)
    views = driven(held_gradients(backbone_of(args), args.files, args.people, config, cache_of(args)))
    found = {name: view.seen() for name, view in views.items()}
    width = max(map(len, found))
    print(f"{'Meta-Down':{width}}  held    of it theirs  everyone's  inputs along its rows")
    for name, seen in sorted(found.items(), key=lambda pair: -pair[1].own):
        print(
            f"{name:{width}}  {seen.held:6.1%}  {seen.own:12.1%}  {seen.common:10.1%}  "
            f"{seen.input_energy:6.2f} times those along a random direction"
        )
    if args.by_site:
        save_by_site(views, args.by_site)
        by_site = views[str(args.files[0])].by_site()
        print(f"\nmost theirs of what {args.files[0]} holds:")
        for site, seen in sorted(by_site.items(), key=lambda pair: -pair[1].own)[:SITES_SHOWN]:
            print(f"  {seen.own:6.1%}  {site}")
        print(f"wrote {args.by_site}, with all {len(by_site)} sites")


def import_file(args: argparse.Namespace) -> None:
    """Take what is shared out of a file."""
    from ..jobs.meta_down_sources import import_meta_down

    found = driven(import_meta_down(args.file, args.out, backbone_of(args), args.domain, args.sites, args.overwrite))
    print(f"took {len(found.taken)} down matrices, rank {', '.join(map(str, found.ranks))}, sites: {found.sites}")
    print(f"left {len(found.left)} tensors" + (f", such as {', '.join(found.left[:3])}" if found.left else ""))
    show_next(args)


def from_loras(args: argparse.Namespace) -> None:
    """Find what LoRAs share."""
    from ..jobs.meta_down_sources import meta_down_from_loras

    job = meta_down_from_loras(
        args.folder,
        args.out,
        backbone_of(args),
        args.domain,
        args.meta_rank,
        first=args.first,
        overwrite=args.overwrite,
    )
    found = driven(job)
    print(f"distilled {len(found.taken)} LoRAs into {args.meta_rank} directions a layer, sites: {found.sites}")
    if found.left:
        print(f"skipped {len(found.left)} files, for the reasons above: {', '.join(found.left[:5])}")
    show_next(args)


def show_next(args: argparse.Namespace) -> None:
    """Where the result is, and what to type next."""
    print(f"wrote {args.out}")
    flags = f"--meta-down {args.out} --class {args.domain}{chosen_backbone(args)}"
    print(f"next:  metalora personalize photo.jpg {flags}")
