"""Measures how soon replicas come after a step of the load, and that none is lost when they go.

    python -m tests.benchmarks scaling [--latency-s 2]

Five turns in flight, then two hundred, then five again, with a model that takes two seconds for each of its replies.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.systems import production, send_load, service, stub_model

DOWNSCALE_S = 15.0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-s", type=float, default=2)
    given = parser.parse_args()
    with ExitStack() as stack:
        stub = stack.enter_context(stub_model())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "production"
        folder.mkdir()
        system = stack.enter_context(
            service(
                "production",
                stub.url,
                folder,
                scaling={"downscale_delay_s": DOWNSCALE_S},
                environment=production(folder),
            )
        )
        stub.set(given.latency_s)
        seen: list[tuple[float, int]] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.25):
                agents = system.agents()
                if not seen or seen[-1][1] != agents:
                    seen.append((time.monotonic(), agents))

        watching = threading.Thread(target=watch)
        watching.start()
        for clients, seconds in ((5, 10), (200, 60), (5, 4 * DOWNSCALE_S)):
            begun, before = time.monotonic(), len(seen)
            found = send_load(system, "--clients", str(clients), seconds=seconds)
            changes = ", ".join(f"{agents} agents after {at - begun:.0f} s" for at, agents in seen[before:])
            times = f"p50 {found['p50_s']:.2f} s, p99 {found['p99_s']:.2f} s"
            ended = f"{found['turns']} answered, failed {found['failed'] or 0}"
            print(
                f"{clients} turns in flight for {seconds:.0f} s: {ended}, {times}; {changes or 'no change'}", flush=True
            )
        over.set()
        watching.join()
