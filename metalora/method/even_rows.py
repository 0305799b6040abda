"""A Meta-Down whose directions are all learned at one pace: orthogonal rows of a fresh one's length."""

import torch
from torch import Tensor

ROW_LENGTH = 3**-0.5  # of a fresh down layer's rows (uniform in +-1/sqrt(in)): heads then learn at the pace they know


def even_rows(down: Tensor, length: float = ROW_LENGTH) -> Tensor:
    """The nearest [r, in] with orthogonal rows (polar decomposition), each as long as a fresh down layer's or `length`.

    Heads can reach the same updates on either: the row space is the same, and mid undoes the change of basis. But
    stage 1 lets some rows grow far longer than others, above all where a layer's input is large; Adam's steps have
    one size, so that heads on such rows learn those directions many times faster than the rest.
    """
    left, _, right = torch.linalg.svd(down.double(), full_matrices=False)
    return (left @ right * length).to(down)
