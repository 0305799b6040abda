"""The nodes: schema in, one job, outputs out. No maths, no file formats; ComfyUI's insides only in `bridge`."""

from comfy_api.latest import ComfyExtension, io

from .benchmark import PlanBenchmark, ReportBenchmark, RunBenchmark
from .bridge import folders
from .crops import AugmentFaceCrops
from .evaluation import EvaluateLikeness
from .loaders import LoadDemoPerson, LoadMetaDown, LoadMiniature, LoadPhotos
from .meta_training import MetaTrain
from .training import LoadAdapter, MergeToLora, TrainPersonalization

NODES: list[type[io.ComfyNode]] = [
    LoadMiniature,
    LoadDemoPerson,
    LoadPhotos,
    LoadMetaDown,
    AugmentFaceCrops,
    TrainPersonalization,
    LoadAdapter,
    MergeToLora,
    EvaluateLikeness,
    MetaTrain,
    PlanBenchmark,
    RunBenchmark,
    ReportBenchmark,
]


class Extension(ComfyExtension):
    """What ComfyUI asks for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register_folder()  # not in on_load, which 0.3.64 never calls
        folders.offer_example_photo()
        return NODES
