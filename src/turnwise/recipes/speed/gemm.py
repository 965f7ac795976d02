"""The machine's rate of matrix products, measured between the steps: what every figure is held against.

Plain is `torch.nn.functional.linear`. On a CPU oneDNN is the other library that PyTorch brings along, here with weights in
the layout that it likes best; both compute in the precision named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from turnwise.recipes.speed.cases import Case
from turnwise.recipes.speed.meter import Meter

_N = 1024
_SECONDS = 0.06
"""For each route and step."""


def run(case: Case, dtype: str, meter: Meter, options: Mapping[str, Any]) -> None:
    """Count, in each step, the rate of each route in GFLOP/s.

    Args:
        case: Says on which device, with how many threads.
        dtype: Nothing: all are measured.
        meter: Takes the figures.
        options: Nothing.
    """
    import torch

    chip = torch.backends.cpu.get_cpu_capability()
    name = torch.cuda.get_device_name() if case.device != "cpu" else ""
    meter.settings(capability=chip, gpu=name)
    with torch.no_grad():
        routes = _routes(case.device)
        while meter.next():
            meter.count(**{name: _rate(call, case.device) for name, call in routes.items()})


def _routes(device: str) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    x32 = torch.randn(_N, _N, generator=generator).to(device)
    w32 = torch.randn(_N, _N, generator=generator).to(device)
    x16, w16 = x32.bfloat16(), w32.bfloat16()
    routes: dict[str, Callable[[], Any]] = {
        "fp32 plain": lambda: functional.linear(x32, w32),
        "bf16 plain": lambda: functional.linear(x16, w16),
    }
    if device == "cpu" and torch.backends.mkldnn.is_available():
        ops: Any = torch.ops.mkldnn
        for name, x, w in (("fp32 oneDNN", x32, w32), ("bf16 oneDNN", x16, w16)):
            try:
                packed = ops._reorder_linear_weight(w, _N)
                ops._linear_pointwise(x, packed, None, "none", [], "")
            except RuntimeError:
                continue  # a build without it, or a chip that it has no such product for
            routes[name] = lambda x=x, w=packed: ops._linear_pointwise(x, w, None, "none", [], "")
    return routes


def _rate(call: Callable[[], Any], device: str) -> float:
    """GFLOP/s, by the fastest call."""
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        call()
        if device != "cpu":
            import torch

            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * _N**3 / best / 1e9
