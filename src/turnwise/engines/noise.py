"""Counter-based noise: a number depends on its key and counter and on nothing else.

SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") applied to key + counter ·
golden ratio. Vectorised over rows, without state, so the order in which an engine serves its sessions cannot matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(z: Any) -> Any:
    """The finaliser, on one word or on an array of them."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def mix(*parts: int) -> int:
    """A 64-bit key from integers, each of which changes it wholly."""
    state = 0
    for part in parts:
        state = _mix((state + _GOLDEN + part) & _MASK)
    return state


def uniform(keys: NDArray[np.uint64], counters: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R,) numbers in [0, 1), one for each key (R,) and counter (R,)."""
    state = _mix(keys + (counters.astype(np.uint64) + 1) * _GOLDEN)
    return (state >> 11).astype(np.float64) * 2.0**-53
