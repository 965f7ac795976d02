"""Do the vetted settings still learn? Each over several seeds, with intervals, against its bar.

    python benchmarks/learning/run.py                      all of them, five seeds
    python benchmarks/learning/run.py errand --seeds 10    one of them, ten seeds

Prints a table and writes ``results.json`` and ``results.md`` into the output folder. The exit status is 1 when a bar is
missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from turnwise.recipes.learning import measure
from turnwise.recipes.vetted import VETTED


def main() -> int:
    """Run, print, write; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VETTED)}; all by default")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each setting")
    parser.add_argument("--episodes", type=int, default=512, help="held-out tasks of each evaluation")
    parser.add_argument("--out", type=Path, default=None, help="folder for runs and results")
    arguments = parser.parse_args()
    names = arguments.names or list(VETTED)
    unknown = [name for name in names if name not in VETTED]
    if unknown:
        parser.error(f"no vetted setting {unknown[0]!r}; there are {', '.join(VETTED)}")
    out = arguments.out or Path(tempfile.mkdtemp(prefix="turnwise-learning-"))
    results = measure(names, out, seeds=arguments.seeds, episodes=arguments.episodes)
    print(f"wrote {out / 'results.json'} and {out / 'results.md'}")
    return 0 if all(result["held"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
