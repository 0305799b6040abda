"""What heads on a Meta-Down would see of new people's first gradients: what it is worth, known within seconds."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, fields
from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import Phase, Step, UserError
from ..config_meta_train import MetaTrainConfig
from ..method.adapter import random_meta_down
from ..method.flow import generator_of
from ..method.ranks import ALONE
from ..method.seen_by_heads import LOOKS, Seen, SeenByHeads
from ..store import files
from ..store.cache import Cache
from . import Job
from .meta_downs import RANDOM, read_meta_down
from .stage_one_data import prepared
from .stage_one_start import loss_of


def held_gradients(
    backbone: Backbone, meta_downs: Sequence[Path], source: Path, config: MetaTrainConfig, cache: Cache
) -> Job[dict[str, SeenByHeads]]:
    """By Meta-Down, and for a random one, what it holds of the gradients of the people in `source`, and whose it is."""
    sites = backbone.sites(config.sites)
    named = {str(path): read_meta_down(path, sites, backbone.name, 1)[0] for path in meta_downs}
    ranks = sorted({len(down) for downs in named.values() for down in downs.values()})
    if len(ranks) > 1:
        raise UserError(
            f"These Meta-Downs have ranks {', '.join(map(str, ranks))} (r1), and a larger one holds more whatever it "
            "has learned. Compare those of one rank."
        )
    named[RANDOM] = random_meta_down(sites, ranks[0], generator_of(config.seed, "meta-down"))
    people = yield from prepared(source, backbone, config, cache, ALONE)
    yield Phase(f"the first gradients of {len(people.train)} people, {LOOKS} looks at each")
    views = {name: SeenByHeads(sites, downs, backbone.device) for name, downs in named.items()}
    with backbone.denoiser() as denoiser:
        for count, person in enumerate(people.train, 1):
            for which in range(LOOKS):
                with ExitStack() as looks:
                    for view in views.values():
                        looks.enter_context(view.look(denoiser.network))
                    noise = ("held", config.seed, which)
                    loss_of(person, people, denoiser, ("held", config.seed), noise, which, LOOKS).backward()
            for view in views.values():
                view.counted()
            yield Step(count, len(people.train))
    return views


def save_by_site(views: Mapping[str, SeenByHeads], path: Path) -> None:
    """A table, a row for each Meta-Down and site: shares from 0 to 1, and inputs in times a random direction's."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["meta_down", "site", *(field.name for field in fields(Seen))])
    for name, view in views.items():
        for site, seen in view.by_site().items():
            table.writerow([name, site, *astuple(seen)])
    files.write_bytes(path, text.getvalue().encode())
