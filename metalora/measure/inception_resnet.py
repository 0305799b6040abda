"""InceptionResnetV1: the network that FaceNet's public weights are for.

After the Inception-ResNet-v1 of Szegedy et al. (arXiv 1602.07261) as David Sandberg trained it on VGGFace2. Its modules
have the names that facenet-pytorch gave them, so that its weight files fit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 160  # pixels of the square face
LENGTH = 512  # numbers of an embedding
EPSILON = 0.001  # of all batch norms, as in TensorFlow


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inward: int, outward: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = False):
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if same else 0
        self.conv = nn.Conv2d(inward, outward, (rows, columns), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outward, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Ways beside each other, named branch0, branch1, ..., joined along the channels."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.count = len(branches)

    def joined(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(f"branch{number}")(x) for number in range(self.count)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x)


class Residual(Branches):
    """x + scale * a linear mixture of the branches, then ReLU, unless it is the last."""

    def __init__(self, *branches: nn.Module, inside: int, outside: int, scale: float, last: bool = False):
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(inside, outside, 1)
        self.scale, self.last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.conv2d(self.joined(x))
        return x if self.last else F.relu(x)


def block35() -> Residual:
    """On 17 x 17 cells; its name is their number in the original, larger picture."""
    conv = BasicConv2d
    two = nn.Sequential(conv(256, 32, 1), conv(32, 32, 3, same=True))
    three = nn.Sequential(conv(256, 32, 1), conv(32, 32, 3, same=True), conv(32, 32, 3, same=True))
    return Residual(conv(256, 32, 1), two, three, inside=96, outside=256, scale=0.17)


def block17() -> Residual:
    """On 8 x 8 cells."""
    conv = BasicConv2d
    crossed = nn.Sequential(conv(896, 128, 1), conv(128, 128, (1, 7), same=True), conv(128, 128, (7, 1), same=True))
    return Residual(conv(896, 128, 1), crossed, inside=256, outside=896, scale=0.10)


def block8(last: bool = False) -> Residual:
    """On 3 x 3 cells."""
    conv = BasicConv2d
    crossed = nn.Sequential(conv(1792, 192, 1), conv(192, 192, (1, 3), same=True), conv(192, 192, (3, 1), same=True))
    scale = 1.0 if last else 0.20
    return Residual(conv(1792, 192, 1), crossed, inside=384, outside=1792, scale=scale, last=last)


def mixed_6a() -> Branches:
    """17 x 17 -> 8 x 8 cells, 256 -> 896 channels."""
    conv = BasicConv2d
    three = nn.Sequential(conv(256, 192, 1), conv(192, 192, 3, same=True), conv(192, 256, 3, 2))
    return Branches(conv(256, 384, 3, 2), three, nn.MaxPool2d(3, 2))


def mixed_7a() -> Branches:
    """8 x 8 -> 3 x 3 cells, 896 -> 1792 channels."""
    conv = BasicConv2d
    one = nn.Sequential(conv(896, 256, 1), conv(256, 384, 3, 2))
    two = nn.Sequential(conv(896, 256, 1), conv(256, 256, 3, 2))
    three = nn.Sequential(conv(896, 256, 1), conv(256, 256, 3, same=True), conv(256, 256, 3, 2))
    return Branches(one, two, three, nn.MaxPool2d(3, 2))


class InceptionResnetV1(nn.Module):
    """Faces [n, 3, 160, 160], about -1..1 -> [n, 512], each of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = BasicConv2d(3, 32, 3, 2)
        self.conv2d_2a = BasicConv2d(32, 32, 3)
        self.conv2d_2b = BasicConv2d(32, 64, 3, same=True)
        self.conv2d_3b = BasicConv2d(64, 80, 1)
        self.conv2d_4a = BasicConv2d(80, 192, 3)
        self.conv2d_4b = BasicConv2d(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(block35() for _ in range(5)))
        self.mixed_6a = mixed_6a()
        self.repeat_2 = nn.Sequential(*(block17() for _ in range(10)))
        self.mixed_7a = mixed_7a()
        self.repeat_3 = nn.Sequential(*(block8() for _ in range(5)))
        self.block8 = block8(last=True)
        self.last_linear = nn.Linear(1792, LENGTH, bias=False)
        self.last_bn = nn.BatchNorm1d(LENGTH, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = F.max_pool2d(x, 3, 2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
        return F.normalize(x, dim=1)
