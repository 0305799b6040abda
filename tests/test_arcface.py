"""ArcFace is brought by the user: what is said where it is missing, and that the files that are there are opened."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from opencv_faces import opencv_faces
from photos import FACE, overlap, portrait

from metalora.config import UserError
from metalora.measure import arcface, load_faces


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
