"""Measures a thousand turns in flight at the same time.

    python -m tests.benchmarks in_flight [--turns 1000] [--latency-s 5]

The model takes five seconds before the first token of each of its two replies. The clients begin one after another
within the time of a turn, so that all of them are in flight from then on. Prints how much longer than the model the
first token took, and the memory of each turn in flight.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.systems import production, send_load, service, stub_model

TOKENS = 20


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--latency-s", type=float, default=5)
    given = parser.parse_args()
    turn_s = 2 * given.latency_s
    with ExitStack() as stack:
        stub = stack.enter_context(stub_model())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "production"
        folder.mkdir()
        system = stack.enter_context(service("production", stub.url, folder, environment=production(folder)))
        send_load(system, "--stream", "--clients", "8", seconds=3)
        idle = system.pss_bytes().total()
        stub.set(given.latency_s, TOKENS)
        during: list[int] = []

        def look() -> None:
            time.sleep(1.5 * turn_s)
            during.append(system.pss_bytes().total())

        looking = threading.Thread(target=look)
        looking.start()
        found = send_load(
            system, "--stream", "--clients", str(given.turns), "--ramp-s", str(turn_s), seconds=2 * turn_s
        )
        looking.join()
    added = {name: 1000 * (found[f"first_token_{name}_s"] - turn_s) for name in ("p50", "p99")}
    per_turn_kb = (during[0] - idle) / found["most_in_flight"] / 1000
    print(f"{found['turns']} turns answered, {found['most_in_flight']} at once, failed {found['failed'] or 0}")
    print(f"first token: {added['p50']:.0f} ms p50, {added['p99']:.0f} ms p99 longer than the model")
    print(f"{per_turn_kb:.0f} KB PSS for each turn in flight, of all processes ({idle / 1e9:.2f} GB idle)")
