"""Which library multiplies float32 matrices on a CPU: the one PyTorch takes, or oneDNN.

`torch.nn.functional.linear` asks MKL, which on some processors reaches half of what the same processor does through oneDNN, and
on others as much or more. PyTorch hands a product to oneDNN if ``torch.backends.mkldnn.matmul.fp32_precision`` allows it to round
to bfloat16. Where the processor has no matrix unit for bfloat16, oneDNN does not round at all; where it has one (Intel's AMX) it
does. So the route is taken only where float64 agrees with it and where it was measured to be clearly faster.

**Decided once per machine.** The two routes differ in the last digits, and equal runs are to be equal bit for bit, resumed ones too,
while a measurement of time can come out either way. So no process decides for itself: the first one on a machine measures, writes
what it found into the user's cache folder, and every later one reads that. The name of the file is made of the processor, the
version of PyTorch and the number of threads. Two processes that measure at once agree on whose file came first. Where nothing can
be stored, products stay with PyTorch. The decision is one number, the size from which on oneDNN wins by 1.15 times at least at
every size that was tried: what is measured once must not hang on a few microseconds at one shape.

The switch is global: while a product runs through oneDNN, those of other threads do too.

Set ``TURNWISE_ROUTE`` to ``plain`` (PyTorch's own everywhere) or ``onednn`` (oneDNN for every size) to decide yourself, for example
to compare runs of two machines.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from turnwise.errors import TurnwiseError

VARIABLE = "TURNWISE_ROUTE"
"""Environment variable that decides instead of the measurement."""

TOLERANCE = 2e-6
"""Relative error against float64 that float32 keeps and bfloat16 does not."""

ADVANTAGE = 1.15
"""How much faster another route must be."""

_LADDER = ((128, 64, 128), (256, 128, 256), (512, 128, 512), (1024, 256, 512))
_PACKED_LADDER = ((16, 128, 512), (64, 256, 512), (64, 512, 1024))
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Routes:
    """From which size on a product goes through oneDNN; a product of (M, K) and (K, N) has the size M · K · N.

    Attributes:
        products: Of products in general; infinite where oneDNN is not taken.
        packed: Of products with a float32 weight that was packed beforehand, see `PackedWeight`.
        packed_bf16: Likewise of a bfloat16 weight, whose products are oneDNN's anyway.
    """

    products: float = math.inf
    packed: float = math.inf
    packed_bf16: float = math.inf


PLAIN = Routes()
"""PyTorch's own route everywhere."""


def routes() -> Routes:
    """The routes of this machine at the present number of threads, or those that ``TURNWISE_ROUTE`` asks for.

    Raises:
        TurnwiseError: the variable has another value, or asks for oneDNN where that is not exact.
    """
    return _routes(os.environ.get(VARIABLE, ""), torch.get_num_threads())


@cache
def _routes(asked: str, threads: int) -> Routes:
    if asked not in ("", "plain", "onednn"):
        raise TurnwiseError(f"{VARIABLE}={asked!r}; use 'plain', 'onednn', or nothing to have it measured once")
    if asked == "plain":
        return PLAIN
    if asked == "onednn":
        if not _is_exact():
            raise TurnwiseError(
                f"{VARIABLE}=onednn: oneDNN is missing or rounds float32 products to bfloat16 here; use 'plain', or nothing"
            )
        return Routes(0.0, 0.0, 0.0)
    folder = _folder()
    return decided(folder / f"{_machine(threads)}.json", measured) if folder else PLAIN


def decided(path: Path, measure: Callable[[], Routes]) -> Routes:
    """The decision that a file holds; if there is none, `measure` and write it.

    Returns:
        What the file holds in the end, whoever wrote it; `PLAIN` where it can be neither read nor written.
    """
    found = _read(path)
    if found is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A link is made or refused in one step, and what it shows is complete.
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new") as file:
                json.dump({name: None if math.isinf(size) else size for name, size in asdict(measure()).items()}, file)
                file.flush()
                os.link(file.name, path)
        except OSError:
            pass  # another process was first, or nothing can be stored here
        found = _read(path)
    return found or PLAIN


def _read(path: Path) -> Routes | None:
    try:
        stored = json.loads(path.read_text())
        return Routes(**{name: math.inf if size is None else float(size) for name, size in stored.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "turnwise" / "routes"
    except RuntimeError:
        return None  # a user without a home


def _machine(threads: int) -> str:
    """A name for all that decides how fast and how exact products are."""
    about = [platform.machine(), platform.processor(), torch.__version__, str(threads), *Routes.__slots__]
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        about += [
            line for line in lines if line.split("\t")[0] in ("vendor_id", "cpu family", "model", "model name", "flags")
        ]
    except OSError:
        pass  # not Linux: the processor's name has to do
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:32]


# ---- measuring --------------------------------------------------------------------------------------------------------


def measured() -> Routes:
    """Time both routes on products of several sizes; less than 100 ms on one core."""
    if not _is_exact():
        return PLAIN
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def through(product: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with onednn():
                return product()

        return run

    faster: list[bool] = []
    for m, k, n in _LADDER:
        x, w, g = drawn(m, k), drawn(n, k), drawn(m, n)
        products = (partial(F.linear, x, w), partial(torch.mm, g, w), partial(torch.mm, g.t(), x))
        faster.append(all(_ratio(product, through(product)) >= ADVANTAGE for product in products))
    packed: list[float] = []
    for dtype in (torch.float32, torch.bfloat16):
        won: list[bool] = []
        for m, k, n in _PACKED_LADDER:
            x, w = drawn(m, k).to(dtype), drawn(n, k).to(dtype)
            won.append(_ratio(partial(F.linear, x, w), partial(PackedWeight(w, rows=m), x)) >= ADVANTAGE)
        packed.append(_first(_PACKED_LADDER, won))
    return Routes(_first(_LADDER, faster), *packed)


def _ratio(plain: Callable[[], Tensor], other: Callable[[], Tensor]) -> float:
    """How many times faster the other is, by the best of some turns each."""
    plain(), other()
    best = [math.inf, math.inf]
    for _ in range(_REPEATS):
        for i, run in enumerate((plain, other)):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0] / best[1]


def _first(ladder: tuple[tuple[int, int, int], ...], faster: list[bool]) -> float:
    """The smallest size from which on every larger one that was tried is faster."""
    size = math.inf
    for shape, won in zip(reversed(ladder), reversed(faster), strict=True):
        if not won:
            break
        size = float(math.prod(shape))
    return size


@cache
def _is_exact() -> bool:
    """oneDNN is there, and float64 agrees with its products and with those of packed weights."""
    known = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
    if not known or not hasattr(torch.backends.mkldnn, "matmul"):  # PyTorch 2.9 brought the switch
        return False
    generator = torch.Generator().manual_seed(0)
    x, w, g = (torch.randn(shape, generator=generator) for shape in ((256, 512), (384, 512), (256, 384)))
    with onednn():
        found = [F.linear(x, w), g @ w, g.t() @ x]
    found.append(PackedWeight(w, rows=len(x))(x))
    x, w, g = (part.double() for part in (x, w, g))
    right = [x @ w.t(), g @ w, g.t() @ x, x @ w.t()]
    return all(
        float((ours.double() - theirs).norm() / theirs.norm()) <= TOLERANCE
        for ours, theirs in zip(found, right, strict=True)
    )


# ---- products ---------------------------------------------------------------------------------------------------------


@contextmanager
def onednn() -> Iterator[None]:
    """Inside, float32 products of matrices go through oneDNN, whatever was decided. Not for attention: small ones are slow."""
    setting = cast("Any", torch.backends.mkldnn).matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def product(a: Tensor, b: Tensor) -> Tensor:
    """(M, K) times (K, N), through the route of its size; it has no gradient."""
    if _goes_through_onednn(a, a.numel() * b.shape[-1]):
        with onednn():
            return a.mm(b)
    return a.mm(b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` through the route of its size, and so both products of its gradient.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,), or None.

    Returns:
        (..., N).
    """
    if _goes_through_onednn(x, x.numel() * len(weight)):
        return _Linear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias)


def _goes_through_onednn(x: Tensor, size: int) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return size >= routes().products


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with onednn():
            return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        grad_x = grad_weight = grad_bias = None
        with onednn():
            if ctx.needs_input_grad[0]:
                grad_x = grad.mm(weight).view(x.shape)
            if ctx.needs_input_grad[1]:
                grad_weight = grad.t().mm(x.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias


class PackedWeight:
    """A weight in the layout that oneDNN computes in, for products without a gradient; worth it while the weight stays.

    Args:
        weight: (N, K) float32 or bfloat16.
        bias: (N,), or None.
        rows: Number of rows M that most products have; others work as well.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, rows: int = 64) -> None:
        self._weight, self._bias, self._rows = weight, bias, rows
        self.refresh()

    def refresh(self) -> None:
        """Pack again: the weight has changed in place."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.detach(), self._rows)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        bias = None if self._bias is None else self._bias.detach()
        return torch.ops.mkldnn._linear_pointwise(x.detach(), self._packed, bias, "none", [], "")


def packs(rows: int, weight: Tensor) -> bool:
    """Whether a product of `rows` rows with a (N, K) weight should use a `PackedWeight`."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    found = routes()
    return rows * weight.numel() >= (found.packed if weight.dtype == torch.float32 else found.packed_bf16)


def install(model: nn.Module) -> None:
    """Send the float32 linear layers of a model on a CPU through `linear`; does nothing where PyTorch's own route is the best.

    Parameters, names, classes and what is saved stay as they are. Layers that somebody else gave a forward are left alone.

    Args:
        model: Any model.
    """
    layers = [part for part in model.modules() if type(part) is nn.Linear and "forward" not in vars(part)]
    layers = [part for part in layers if part.weight.device.type == "cpu" and part.weight.dtype == torch.float32]
    if layers and not math.isinf(routes().products):
        for layer in layers:
            layer.forward = partial(_forward, layer)  # pyright: ignore[reportAttributeAccessIssue]


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)
