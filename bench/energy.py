"""What a GPU's own counter says of energy, through NVML, where `nvidia-ml-py` is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from .measuring import Steps, synchronize

Counter = Callable[[], float]  # joules since some moment


def counter(device: str) -> Counter | str:
    """The GPU's counter, or a sentence on why there is none."""
    if not device.startswith("cuda"):
        return "no GPU, so no counter"
    if find_spec("pynvml") is None:
        return "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    import pynvml

    try:
        pynvml.nvmlInit()
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return f"the driver does not count: {error}"
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # it counts in millijoules


def joules_a_step(steps: Steps, count: int, device: str, read: Counter) -> float:
    """Of the whole card over `count` steps in a row: the counter moves too seldom for a single one."""
    synchronize(device)
    before = read()
    for _ in range(count):
        next(steps)
    synchronize(device)
    return (read() - before) / count
