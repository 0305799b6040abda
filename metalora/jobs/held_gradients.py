"""How much of people's first gradients lies in a Meta-Down: what it is worth, known within seconds."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import Phase, Step, UserError
from ..config_meta_train import MetaTrainConfig
from ..method.adapter import random_meta_down
from ..method.first_gradients import FirstGradients, directions_of
from ..method.flow import generator_of
from ..method.ranks import ALONE
from ..store.cache import Cache
from . import Job
from .meta_downs import RANDOM, read_meta_down
from .stage_one_data import prepared
from .stage_one_start import look_at


def held_gradients(
    backbone: Backbone, meta_downs: Sequence[Path], source: Path, config: MetaTrainConfig, cache: Cache
) -> Job[dict[str, float]]:
    """By Meta-Down, and for a random one, the share of squared norms, mean over sites and the people in `source`."""
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
    yield Phase(f"the first gradients of {len(people.train)} people")
    with backbone.denoiser() as denoiser, ExitStack() as hearing:
        all_gradients = {
            name: FirstGradients(sites, directions_of(downs), backbone.device) for name, downs in named.items()
        }
        for gradients in all_gradients.values():
            hearing.enter_context(gradients.heard(denoiser.network))
        for count, person in enumerate(people.train, 1):
            look_at(person, people, denoiser, ("held", config.seed))
            for gradients in all_gradients.values():
                gradients.counted()
            yield Step(count, len(people.train))
    return {name: gradients.held() for name, gradients in all_gradients.items()}
