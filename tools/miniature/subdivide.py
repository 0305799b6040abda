"""One step of Catmull-Clark subdivision as a sparse matrix, which applies to a mesh and to every blendshape of it."""

import numpy as np
import scipy.sparse as sparse


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
