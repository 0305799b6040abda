"""What a run starts from: a Meta-Down from a file or drawn from the seed, with fresh heads; or a plain LoRA."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..backbones.lora_products import STRONGEST
from ..backbones.protocol import Backbone
from ..config import PersonalizeConfig, UserError
from ..method.adapter import Adapters, Site, new_adapters, random_meta_down
from ..method.flow import generator_of
from ..store import files

RANDOM = "random"  # the Meta-Down that has learned nothing, drawn from the seed: the control
SHIPPED = Path(__file__).parents[1] / "data" / "meta_downs"


ALL = "all"  # the domain of a Meta-Down that was trained on every class at once


def shipped_meta_down(base: str, class_name: str) -> Path | None:
    """The Meta-Down that comes with the package for this base and class, or for every class."""
    shipped = shipped_meta_downs(base)
    return shipped.get(class_name, shipped.get(ALL))


def shipped_meta_downs(base: str) -> dict[str, Path]:
    """By class, the Meta-Downs that come with the package for this base."""
    found = {}
    for path in sorted(SHIPPED.glob("*.safetensors")):
        with files.opened(path) as file:
            metadata = files.own_metadata(file.metadata())
        if metadata["base"] == base:
            found[metadata["domain"]] = path
    return found


def starting_adapters(
    backbone: Backbone, config: PersonalizeConfig, meta_down: str | None
) -> tuple[Adapters, dict[str, str]]:
    """Adapters at their start, and the metadata of the Meta-Down they stand on."""
    sites, generator = backbone.sites(config.sites), generator_of(config.seed, "heads")
    if config.method != "meta-lora":
        if meta_down is not None:
            raise UserError(f"--meta-down is for --method meta-lora; {config.method} trains without one.")
        return new_adapters(sites, config.rank, generator, scale=config.scale), {}
    meta_down = meta_down or default_meta_down(backbone.name, config.class_name)
    if meta_down == RANDOM:
        downs = untrained_meta_down(sites, config, config.rank)
        origin = {"meta_down": f"random, seed {config.seed}", "meta_rank": str(config.meta_rank)}
    else:
        downs, origin = read_meta_down(Path(meta_down), sites, backbone.name, config.rank)
    return new_adapters(sites, config.rank, generator, meta_down=downs, scale=config.scale), origin


def untrained_meta_down(sites: Sequence[Site], config: PersonalizeConfig, rank: int) -> dict[str, Tensor]:
    """Site name -> [meta_rank, in], the control; refused where it is too small for LoRAs of this rank."""
    if rank > config.meta_rank:
        raise UserError(
            f"rank (r2) {rank} is larger than meta_rank (r1) {config.meta_rank}: a finished LoRA cannot have a higher "
            "rank than its Meta-Down. Lower --rank, raise --meta-rank, or use --method lora."
        )
    return random_meta_down(sites, config.meta_rank, generator_of(config.seed, "meta-down"))


def default_meta_down(base: str, class_name: str) -> str:
    """The shipped one, where none is named; where none is shipped either, what to do."""
    if found := shipped_meta_down(base, class_name):
        return str(found)
    shipped = shipped_meta_downs(base)
    others = f"For {base} there are shipped ones: say --class {' or --class '.join(shipped)}. " if shipped else ""
    raise UserError(
        f"--method meta-lora needs --meta-down FILE, trained for this base and class. {others}Without one, "
        "--method lora trains a plain LoRA; --meta-down random is the untrained control."
    )


def read_meta_down(path: Path, sites: Sequence[Site], base: str, rank: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(site name -> [meta_rank, in], metadata); refused unless it was made for this base and every site fits."""
    tensors, metadata = files.read(path, ("meta-down",), base=base)
    downs = downs_of(path, tensors)
    absent = [site.name for site in sites if site.name not in downs]
    if absent:
        raise UserError(f"{path} has no Meta-Down for {len(absent)} of the {len(sites)} sites, such as {absent[0]}.")
    misfits = [site for site in sites if downs[site.name].shape[1] != site.in_features]
    if misfits:
        raise UserError(
            f"{path} does not fit at {len(misfits)} sites: {misfits[0].name} has shape "
            f"{tuple(downs[misfits[0].name].shape)}, but its layer takes {misfits[0].in_features} numbers."
        )
    meta_rank = min(downs[site.name].shape[0] for site in sites)
    if rank > meta_rank:
        raise UserError(f"{path} has rank {meta_rank} (r1), so --rank (r2) can be at most that, not {rank}.")
    origin = {"meta_down": files.digest_of_tensors(tensors), "meta_rank": str(meta_rank)}
    return downs, origin | {"meta_domain": metadata["domain"]} if "domain" in metadata else origin


def downs_of(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Site name -> [meta_rank, in] of a Meta-Down file's tensors; refused unless all are sane matrices."""
    downs = {name.removesuffix(".down"): tensor for name, tensor in tensors.items() if name.endswith(".down")}
    for name, down in downs.items():
        if down.ndim != 2 or not down.numel() or not down.is_floating_point():
            raise UserError(f"{path} is damaged: {name}.down is {list(down.shape)} of {down.dtype}, not a matrix.")
        if not down.float().abs().max() <= STRONGEST:
            raise UserError(f"{path} is damaged: {name}.down holds NaN, infinity or numbers like it.")
    if not downs:
        raise UserError(f"{path} says that it is a Meta-Down, but holds no down layer: it is damaged.")
    return downs
