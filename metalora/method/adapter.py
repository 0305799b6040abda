"""The three-layer adapter (paper, section 3.2, equation 1), for one identity or a stack of them, on any nn.Module.

    h = W0 x + s * Up_i (Mid_i (MetaDown x))

down [meta_rank, in]     Meta-Down, shared by all identities of a domain
mid  [rank, meta_rank]   one per identity
up   [out, rank]         one per identity; zero at birth, so that a new adapter changes nothing

An ordinary LoRA is the same without mid: h = W0 x + s * Up (Down x).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """A place that takes an adapter: a linear layer, or a slice of the output rows of a fused one."""

    name: str  # the diffusers name, whatever the model: "transformer_blocks.0.attn.to_q"
    module: str  # where the linear layer is in this model: "double_blocks.0.img_attn.qkv"
    in_features: int
    out_features: int
    start: int | None = None  # first output row of the slice; None: the whole layer

    @property
    def rows(self) -> slice:
        """The output rows of `module` that belong to this site."""
        return slice(None) if self.start is None else slice(self.start, self.start + self.out_features)
