"""The three-layer adapter (paper, section 3.2, equation 1), for one identity or a stack of them, on any nn.Module.

    h = W0 x + s * Up_i (Mid_i (MetaDown x))

down [meta_rank, in]     Meta-Down, shared by all identities of a domain
mid  [rank, meta_rank]   one per identity
up   [out, rank]         one per identity; zero at birth, so that a new adapter changes nothing

An ordinary LoRA is the same without mid: h = W0 x + s * Up (Down x). Any of the three may be a stack with a leading
dimension n, one matrix per identity; `adapter_indices` then says which identity each sample of the batch is.

A finished adapter is exported as an ordinary LoRA: three matrices fold into two (section 3.4).
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ..config import UserError

SHARED, IDENTITY = ("down",), ("mid", "up")
ROLES = SHARED + IDENTITY


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


class Adapter(nn.Module):
    """scale * up(mid(down(x))): what is added to a frozen linear layer's output."""

    def __init__(self, down: Tensor, mid: Tensor | None, up: Tensor, scale: float = 1.0):
        super().__init__()
        self.down, self.up, self.scale = nn.Parameter(down), nn.Parameter(up), scale
        self.mid = None if mid is None else nn.Parameter(mid)

    def forward(self, x: Tensor, adapter_indices: Tensor | None = None) -> Tensor:
        """x [b, ..., in] -> [b, ..., out] in x's dtype; the weights stay fp32 for the optimizer.

        With stacks, sample b goes through matrix adapter_indices[b]; without indices through matrix b. In two
        dimensions from the first product to the last: autograd then has fewer operations to remember.
        """
        down, mid, up = self.down, self.mid, self.up
        apply = partial(project, samples=x.shape[0], adapter_indices=adapter_indices)
        h = x.flatten(0, -2)
        if mid is None:
            h = apply(h, down)
        elif mid.shape[-2] == 1 and down.requires_grad:  # the same at rank 1, a meta_rank-th of the arithmetic; with
            h = apply(h, mid @ down)  # a frozen Meta-Down slower, since the inputs would be kept for its gradient
        else:
            h = apply(apply(h, down), mid)
        h = apply(h if self.scale == 1.0 else self.scale * h, up)
        return h.view(*x.shape[:-1], -1)

    def weights(self) -> dict[str, nn.Parameter]:
        """The matrices by role; a plain LoRA has no mid."""
        present = {"down": self.down, "mid": self.mid, "up": self.up}
        return {role: weight for role, weight in present.items() if weight is not None}


def project(tokens: Tensor, weight: Tensor, samples: int, adapter_indices: Tensor | None) -> Tensor:
    """tokens [samples * k, in] through one matrix [out, in], or each sample's through its own of [n, out, in]."""
    weight = weight.to(tokens.dtype)
    if weight.ndim == 2:
        return tokens @ weight.t()
    own = weight if adapter_indices is None else weight[adapter_indices]
    assert len(own) == samples, f"{samples} samples, {len(own)} matrices: `using` says which"
    return each_its_own(tokens.unflatten(0, (samples, -1)), own).flatten(0, 1)


def each_its_own(x: Tensor, weights: Tensor) -> Tensor:
    """x [b, n, in] through weights [b, out, in] -> [b, n, out].

    On a CPU, a batched product with a side of 1 and its gradients take several times as long as the same by elements.
    In fewer bits than float32 that would round each product, which a sum in the product does not.
    """
    by_elements = x.device.type == "cpu" and torch.finfo(x.dtype).bits >= 32
    if by_elements and weights.shape[2] == 1:
        return x * weights.mT
    if by_elements and weights.shape[1] == 1:
        return (x * weights).sum(-1, keepdim=True)
    return torch.bmm(x, weights.mT)


def small_random(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A matrix as a LoRA's down layer starts: uniform in +-1/sqrt(columns) (Kaiming with a = sqrt 5)."""
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) / math.sqrt(columns)


class Adapters:
    """The adapters of a model's sites. The model itself is never changed: they act on outputs while attached."""

    def __init__(self, sites: Iterable[Site], by_name: dict[str, Adapter]):
        self.sites = {site.name: site for site in sites}
        self.by_name = by_name
        self.adapter_indices: Tensor | None = None
        assert self.sites.keys() == by_name.keys()

    def parameters(self, roles: tuple[str, ...] = ROLES) -> list[nn.Parameter]:
        """The weights of the named roles, site by site: the order is the same in every run."""
        return [w for adapter in self.by_name.values() for role, w in adapter.weights().items() if role in roles]

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all weights by "<site>.<role>", on the CPU: what an adapter file holds."""
        return {
            f"{name}.{role}": weight.detach().cpu().clone()
            for name, adapter in self.by_name.items()
            for role, weight in adapter.weights().items()
        }

    def to(self, device: torch.device | str) -> "Adapters":
        """Move the weights; the same object."""
        for adapter in self.by_name.values():
            adapter.to(device)
        return self

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """While inside, `model` computes with the adapters; afterwards, also after an error, it is as before."""
        handles = []
        try:
            for module, sites in linears(model, self.sites.values()):
                handles.append(module.register_forward_hook(self._added_output(sites)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def using(self, adapter_indices: Tensor) -> Iterator[None]:
        """While inside, sample b of every batch goes through identity adapter_indices[b] of the stacks."""
        self.adapter_indices = adapter_indices
        try:
            yield
        finally:
            self.adapter_indices = None

    def _added_output(self, sites: list[Site]):  # type: ignore[no-untyped-def]  # torch names no type for a hook
        # Without names: a compiled block serves all blocks whose hooks hold the same, and names differ.
        parts = [(None if site.start is None else site.rows, self.by_name[site.name]) for site in sites]

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for own, adapter in parts:
                added = adapter.forward(inputs[0], self.adapter_indices)
                if own is None:
                    # Not in place: a selective checkpoint keeps the base's own output for the second forward pass.
                    output = output + added
                else:
                    # In place is safe: a linear layer does not need its output for backward, and nobody else has seen
                    # it yet. `add_` and not `+=`: with an index, Python would also copy the sum onto itself.
                    output[..., own].add_(added)
            return output

        return hook


def is_linear(module: Any) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer: torch's own, or another library's of quantized weights, known by its sizes."""
    if isinstance(module, nn.Linear):
        return True
    own = vars(module) if isinstance(module, nn.Module) else {}
    return {"in_features", "out_features"} <= own.keys() and "weight" in {**own, **module._parameters}


def linears(model: nn.Module, sites: Iterable[Site]) -> list[tuple[nn.Linear, list[Site]]]:
    """Each linear layer with its sites; one UserError lists every site that `model` cannot take."""
    modules = dict(model.named_modules())
    grouped: dict[str, list[Site]] = {}
    problems = []
    for site in sites:
        module = modules.get(site.module)
        end = site.out_features if site.start is None else site.start + site.out_features
        if not is_linear(module):
            problems.append(f"{site.module} is {'missing' if module is None else type(module).__name__}")
        elif module.in_features != site.in_features or module.out_features < end:
            problems.append(f"{site.module} is {module.in_features} -> {module.out_features}, too small for {site}")
        else:
            grouped.setdefault(site.module, []).append(site)
    if problems:
        raise UserError(
            f"{type(model).__name__} cannot take the adapters at {len(problems)} sites: {'; '.join(problems[:3])}. "
            "The adapters were made for another model."
        )
    return [(modules[name], found) for name, found in grouped.items()]


def new_adapters(
    sites: Iterable[Site],
    rank: int,
    generator: torch.Generator,
    *,
    meta_down: dict[str, Tensor] | None = None,
    scale: float = 1.0,
) -> Adapters:
    """Fresh adapters, drawn site by site on the CPU so that one seed is one result on every device.

    With `meta_down` (site name -> [meta_rank, in]) each gets fresh heads on it; without, each is a plain LoRA.
    """
    by_name = {}
    for site in sites:
        up = torch.zeros(site.out_features, rank)
        if meta_down is None:
            by_name[site.name] = Adapter(small_random(rank, site.in_features, generator), None, up, scale)
        else:
            down = meta_down[site.name].float().clone()
            mid = small_random(rank, len(down), generator)
            if rank == len(down):  # nothing has to be chosen among the Meta-Down's directions
                mid = torch.eye(rank)
            by_name[site.name] = Adapter(down, mid, up, scale)
    return Adapters(sites, by_name)


def random_meta_down(sites: Iterable[Site], meta_rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Where stage 1 starts from; as a Meta-Down it is the control that has learned nothing."""
    return {site.name: small_random(meta_rank, site.in_features, generator) for site in sites}


def fold(down: Tensor, mid: Tensor | None, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(lora_down [rank, in], lora_up [out, rank]) with lora_up @ lora_down == scale * up @ mid @ down, in float32."""
    lora_down = down.float() if mid is None else mid.float() @ down.float()
    return lora_down, scale * up.float()


def fold_all(adapters: Adapters) -> dict[str, tuple[Tensor, Tensor]]:
    """The ordinary LoRA by site name, on the CPU."""
    folded = {}
    for name, adapter in adapters.by_name.items():
        on_cpu = {role: weight.detach().cpu() for role, weight in adapter.weights().items()}
        folded[name] = fold(on_cpu["down"], on_cpu.get("mid"), on_cpu["up"], adapter.scale)
    return folded


@contextmanager
def merged(adapters: Adapters, model: nn.Module, kept_on: torch.device | None = None) -> Iterator[None]:
    """While inside, the layers' own weights hold what the adapters add; afterwards they are the same bits as before.

    An image then costs what it costs without a LoRA. The sums are rounded to the weights' precision, as by every loader
    that merges. `kept_on` is where the weights wait meanwhile, by default beside the sums: as much memory again.
    """
    layers = linears(model, adapters.sites.values())
    before = [module.weight.detach().to(kept_on or module.weight.device, copy=True) for module, _ in layers]
    try:
        with torch.no_grad():
            for module, sites in layers:
                for site in sites:
                    rows = module.weight[site.rows]
                    rows.copy_(rows.float() + product(adapters.by_name[site.name]).to(rows.device))
        yield
    finally:
        with torch.no_grad():
            for (module, _), weight in zip(layers, before, strict=True):
                module.weight.copy_(weight)


def product(adapter: Adapter) -> Tensor:
    """scale * up @ mid @ down, [out, in] in float32: what a layer's weight would be more."""
    down, up = fold(adapter.down.detach(), None if adapter.mid is None else adapter.mid.detach(), adapter.up, 1.0)
    return adapter.scale * (up.detach() @ down)
