"""FaceNet on VGGFace2, the embedder of the paper, with facenet-pytorch's pipeline and our own detector.

The largest box, margin 0, is squashed to 160 x 160 without alignment, brought to (x - 127.5) / 128 and embedded. The
paper's boxes are MTCNN's; ours are YuNet's, which are a little different in size and place, so scores are close to the
paper's but not exactly comparable: give the ceiling and the floor that `metalora evaluate pairs` prints beside them.

The embedding depends on how a face is squashed. facenet-pytorch resamples a Pillow image, an array and a tensor in
three ways; here it is always the first: 8-bit RGB, cut at whole pixels, Pillow's bilinear filter. The package
facenet-pytorch itself cannot be a dependency: it asks for torch < 2.3 and numpy < 2.
"""

import hashlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..config import UserError
from .faces import Face, FaceAnalyser, faces_from, pixels
from .sface import YUNET, YuNet

FILE = "20180402-114759-vggface2.pt"
URL = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{FILE}"
SHA256 = "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"  # as a dozen projects that pin it agree
CLASSIFIER = {"logits.weight", "logits.bias"}  # of VGGFace2's 8631 people; an embedding does without


class FaceNet(FaceAnalyser):
    """YuNet finds, InceptionResnetV1 embeds."""

    licence = f"MIT (FaceNet; the right to VGGFace2's photos is unresolved), {YUNET.licence} (YuNet)"
    length = 512

    def __init__(self, path: Path | None = None, device: torch.device | None = None) -> None:
        path = path or fetched()
        weights, self.digest = read_weights(path)
        self.name = "facenet-vggface2" if self.digest == SHA256 else f"facenet-{path.stem}"
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.embedder = InceptionResnetV1().eval().requires_grad_(False)
        try:
            self.embedder.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{path} holds the weights of another network than InceptionResnetV1.") from error
        self.embedder.to(self.device)
        self.batch = 4 if self.device.type == "cpu" else 64
        self.detector = YuNet()

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        return faces_from(*self.detector.find(pixels(photo)), photo)

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[160, 160, 3] uint8: the box, squashed to a square."""
        left, top, right, bottom = (int(edge) for edge in face.box)
        image = Image.fromarray(pixels(photo[:, top:bottom, left:right]))
        return np.array(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    @torch.no_grad()
    def vectors_of_batch(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, 512], each of length 1."""
        faces = torch.from_numpy(np.stack(cuts)).to(self.device)
        return self.embedder((faces.permute(0, 3, 1, 2).float() - 127.5) / 128).cpu()


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and its sha256. Only tensors are unpickled, never code."""
    data = _bytes_of(path)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a file of PyTorch weights ({type(error).__name__}). FaceNet needs {FILE} from {URL}."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds a {type(state).__name__}, not weights by name. FaceNet needs {FILE} from {URL}.")
    tensors = {name: tensor for name, tensor in state.items() if name not in CLASSIFIER}
    return tensors, hashlib.sha256(data).hexdigest()


def fetched(path: Path | None = None) -> Path:
    """The public file, fetched if it is not there; never one with other bytes.

    It lies where facenet-pytorch keeps it too, so that whoever has it does not fetch it again.
    """
    path = path or Path(torch.hub.get_dir()).parent / "checkpoints" / FILE
    by_hand = f"Fetch it elsewhere (107 MB) and put it at {path}, or say --faces facenet:FILE. sface needs no download."
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
        except OSError as error:  # a URLError is one
            raise UserError(f"FaceNet's weights could not be fetched from {URL} ({error}). {by_hand}") from error
        except RuntimeError as error:  # another hash
            raise UserError(f"What {URL} sent is not the public FaceNet file. Nothing was kept. {by_hand}") from error
    found = hashlib.sha256(_bytes_of(path)).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path} is not the public FaceNet file: its sha256 is {found[:16]}..., {SHA256[:16]}... is needed. "
            f"Delete it, and it is fetched again; for other weights say --faces facenet:FILE."
        )
    return path


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"FaceNet's weights {path} cannot be read ({error.strerror}).") from error


SIDE = 160  # pixels of the square face
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

    def forward(self, x: Tensor) -> Tensor:
        branches = [part for name, part in self.named_children() if name.startswith("branch")]
        return torch.cat([branch(x) for branch in branches], dim=1)


class Residual(Branches):
    """x + scale * a linear mixture of the branches, then ReLU, unless it is the last."""

    def __init__(self, *branches: nn.Module, inside: int, outside: int, scale: float, last: bool = False):
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(inside, outside, 1)
        self.scale, self.last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.conv2d(super().forward(x))
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
        self.last_linear = nn.Linear(1792, FaceNet.length, bias=False)
        self.last_bn = nn.BatchNorm1d(FaceNet.length, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = F.max_pool2d(x, 3, 2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
        return F.normalize(x, dim=1)
