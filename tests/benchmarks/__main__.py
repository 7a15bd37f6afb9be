"""Runs a benchmark by its name.

python -m tests.benchmarks compare
python -m tests.benchmarks compare --help
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module

BENCHMARKS = {
    "compare": "turns a second, latency, CPU and memory beside FastAPI and a bare Ray Serve graph",
    "streaming": "tokens a second, and how much later than the model sends it a token arrives",
    "in_flight": "a thousand turns at the same time",
    "scaling": "new replicas after a step of the load",
    "growth": "what a turn costs with more conversations, tools, passages and replicas",
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHMARKS:
        print("python -m tests.benchmarks NAME, with one of these names:")
        for each, what in BENCHMARKS.items():
            print(f"  {each:10} {what}")
        raise SystemExit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started ends, too
    sys.argv[:2] = [f"python -m tests.benchmarks {name}"]
    import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main()
