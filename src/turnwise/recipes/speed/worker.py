"""One side in a process of its own: ``python -m turnwise.recipes.speed.worker SIDE``.

It reads orders as lines of JSON and answers in the same way. ``open`` names a case, ``step`` does one step of it, ``close``
ends it; the end of the input ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from turnwise.recipes.speed.cases import Case
from turnwise.recipes.speed.meter import Meter, Stopped, give_back, quiet_streams

Side = Callable[[Case, str, Meter, Mapping[str, Any]], None]
"""(case, dtype, meter, options): does steps until the meter says stop."""


def main(name: str) -> None:
    """Serve until the input ends.

    Args:
        name: ``ours``, ``gemm``, or whose work it is (`turnwise.recipes.speed.cases.Rival`).
    """
    source, sink = quiet_streams()
    for line in source:
        order: dict[str, Any] = json.loads(line)
        if order["do"] != "open":
            continue
        answer: dict[str, Any] = {"closed": True}
        try:
            case = Case(**order["case"])
            _threads(case.threads)
            _side(name)(case, order["dtype"], Meter(source, sink, case.device), order["options"])
        except Stopped:
            pass
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        gc.collect()
        give_back()
        sink.write(json.dumps(answer) + "\n")
        sink.flush()


def _threads(n: int) -> None:
    import torch

    torch.set_num_threads(n)


def _side(name: str) -> Side:
    if name == "ours":
        from turnwise.recipes.speed.ours import run
    elif name == "gemm":
        from turnwise.recipes.speed.gemm import run
    else:
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from transformers.utils import logging

        logging.set_verbosity_error()
        from turnwise.recipes.speed.theirs import run
    return run


if __name__ == "__main__":
    main(sys.argv[1])
