"""Other embedders: FaceNet gives facenet-pytorch's numbers; ArcFace's files are opened, or named where missing."""

import hashlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import FACE, opencv_faces, overlap, portrait
from record_facenet import BOX, OUT, made_up, made_up_faces, made_up_picture

from metalora.config import UserError
from metalora.measure import arcface, load_faces
from metalora.measure import facenet as facenet_file
from metalora.measure.facenet import FaceNet, InceptionResnetV1
from metalora.measure.faces import Face
from metalora.method.crops import Box

CPU = torch.device("cpu")
ANYWHERE = ((0.0, 0.0),) * 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the public one, with made-up weights and a classifier on top."""
    path = tmp_path_factory.mktemp("facenet") / "made-up.pt"
    state = made_up({name: tensor.shape for name, tensor in InceptionResnetV1().state_dict().items()})
    torch.save(state | {"logits.weight": torch.zeros(9, 512), "logits.bias": torch.zeros(9)}, path)
    return path


@pytest.fixture(scope="module")
def facenet(weights: Path) -> FaceNet:
    return FaceNet(weights, CPU)


def test_the_same_names_and_weights_give_facenet_pytorchs_embeddings(facenet: FaceNet):
    assert sorted(InceptionResnetV1().state_dict()) == np.load(OUT)["names"].tolist()
    picture = torch.from_numpy(made_up_picture()).permute(2, 0, 1) / 255
    cuts = [*made_up_faces(3), facenet.cut(picture, Face(Box(*BOX), ANYWHERE, 1.0))]
    vectors = facenet.vectors(cuts)
    np.testing.assert_allclose(vectors, np.load(OUT)["embeddings"], rtol=0, atol=1e-5)


def test_a_real_face_is_squashed_and_embedded_and_several_together_as_one_by_one(facenet: FaceNet):
    cuts = list(made_up_faces(6))
    torch.testing.assert_close(facenet.vectors(cuts), torch.cat([facenet.vectors([cut]) for cut in cuts]))
    assert facenet.vectors([]).shape == (0, 512)
    (face,) = facenet.find(portrait())
    cut = facenet.cut(portrait(), face)
    assert cut.shape == (160, 160, 3)
    assert cut.dtype == np.uint8
    assert float(facenet.embed(portrait(), face).norm()) == pytest.approx(1)


def test_facenet_says_which_file_it_is(facenet: FaceNet, weights: Path):
    assert facenet.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert facenet.name == "facenet-made-up", "only the public file is called vggface2"
    assert "unresolved" in facenet.licence
    assert load_faces(f"facenet:{weights}").digest == facenet.digest


def test_weights_of_something_else_are_refused(tmp_path: Path):
    for content, message in [
        ({"conv.weight": torch.zeros(2)}, "another network"),
        ([1, 2], "holds a list"),
    ]:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UserError, match=message):
            FaceNet(tmp_path / "w.pt", CPU)
    (tmp_path / "w.pt").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"w\.pt is not a file of PyTorch weights"):
        FaceNet(tmp_path / "w.pt", CPU)
    with pytest.raises(UserError, match="cannot be read"):
        FaceNet(tmp_path / "none.pt", CPU)


class Planted:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (exec, ("import builtins; builtins.planted = True",))


def test_code_in_a_weight_file_is_not_run(tmp_path: Path):
    torch.save({"conv2d_1a.conv.weight": Planted()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="not a file of PyTorch weights"):
        FaceNet(tmp_path / "w.pt", CPU)
    import builtins

    assert "planted" not in vars(builtins)


# Fetching


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the network, three megabytes in the role of the public one."""
    path = tmp_path / "sent.pt"
    path.write_bytes(b"facenet" * 450_000)
    monkeypatch.setattr(facenet_file, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(facenet_file, "URL", path.as_uri())
    return path


def test_the_file_is_fetched_once(tmp_path: Path, sent: Path):
    path = tmp_path / "checkpoints" / facenet_file.FILE
    assert facenet_file.fetched(path) == path
    assert path.read_bytes() == sent.read_bytes()
    sent.unlink()
    assert facenet_file.fetched(path) == path
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_other_bytes_than_the_known_ones_are_never_kept(tmp_path: Path, sent: Path):
    for content in (sent.read_bytes()[:-1], b"<html>"):
        sent.write_bytes(content)
        with pytest.raises(UserError, match=r"is not the public FaceNet file.*Nothing was kept.*facenet:FILE"):
            facenet_file.fetched(tmp_path / "kept" / "w.pt")
        assert list((tmp_path / "kept").iterdir()) == []
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pt is not the public FaceNet file.*Delete it"):
        facenet_file.fetched(tmp_path / "w.pt")


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(tmp_path: Path, sent: Path):
    sent.unlink()
    with pytest.raises(UserError, match=r"could not be fetched from file.*No such file.*put it at .*w\.pt"):
        facenet_file.fetched(tmp_path / "kept" / "w.pt")
    assert list((tmp_path / "kept").iterdir()) == []


def test_arcface_without_insightface_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install insightface.*w600k_r50\.onnx.*buffalo_l.*non-commercial"):
        load_faces("arcface")


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for the package insightface; the list tells which files it was asked to open."""
    asked: list[str] = []

    class Detector:
        taskname = "detection"
        det_thresh = 0.0

        def detect(self, image: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            rows = opencv_faces(image)
            corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 14:]], 1)
            return corners, rows[:, 4:14].reshape(-1, 5, 2)

    class Embedder:
        taskname = "recognition"

        def get_feat(self, images: list[np.ndarray]) -> np.ndarray:
            assert all(image.shape == (112, 112, 3) for image in images)
            return np.full((len(images), 512), 3.0, np.float32)

    def get_model(path: str, providers: list[str]) -> object:
        print("Applied providers")
        asked.append(path)
        return Detector() if "det_10g" in path or "scrfd" in path else Embedder()

    package, zoo = types.ModuleType("insightface"), types.ModuleType("insightface.model_zoo")
    package.__spec__ = importlib.util.spec_from_loader("insightface", None)
    zoo.get_model, package.model_zoo = get_model, zoo
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", zoo)
    return asked


def test_arcface_without_its_files_says_where_they_belong_and_else_opens_them_by_their_paths(
    insightface, tmp_path, capsys
):
    with pytest.raises(UserError, match=r"det_10g\.onnx and w600k_r50\.onnx in .*buffalo_l.*non-commercial"):
        arcface.ArcFace(tmp_path)
    assert insightface == []
    pack = tmp_path / "antelopev2"
    pack.mkdir()
    for name in ("scrfd_10g_bnkps.onnx", "glintr100.onnx"):
        (pack / name).write_bytes(b"weights")
    analyser = arcface.ArcFace(tmp_path)
    assert [Path(path).parent for path in insightface] == [pack, pack]
    assert analyser.name == "arcface-antelopev2"
    assert "non-commercial" in analyser.licence
    (face,) = analyser.find(portrait())
    assert overlap(face.box, FACE) > 0.7
    assert float(analyser.embed(portrait(), face).norm()) == pytest.approx(1)
    assert capsys.readouterr().out == ""
