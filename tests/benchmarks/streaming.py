"""Measures streamed answers: tokens a second, and how late a token arrives.

    python -m tests.benchmarks streaming [--seconds 10]

Each token of the stub model is the time at which it was sent. First the model sends as fast as it is read, to the bare
graph, which makes a Serve message and a frame of each token, and to the service, which batches them. Then it sends a
token every 20 ms in 64 streams at once.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.systems import production, ray_graph, send_load, service, stub_model

FAST_TOKENS, SLOW_TOKENS = 2000, 200
TOKEN_INTERVAL_S = 0.02


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    with ExitStack() as stack:
        stub = stack.enter_context(stub_model())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "production").mkdir()
        environment = production(folder / "production")
        systems = [
            stack.enter_context(ray_graph("graph", stub.url, folder / "graph")),
            stack.enter_context(service("production", stub.url, folder / "production", environment=environment)),
        ]
        stub.set(0.0, FAST_TOKENS)
        rates = []
        for system in systems:
            send_load(system, "--stream", "--clients", "8", seconds=2)
            found = send_load(system, "--stream", "--clients", "8", seconds=seconds)
            rates.append(found["tokens_per_s"])
            print(f"{system.name}: {found['tokens_per_s']:.0f} tokens/s in 8 streams, failed {found['failed'] or 0}")
        print(f"ratio {rates[1] / rates[0]:.1f}")
        for streams in (1, 64):
            stub.set(0.0, SLOW_TOKENS, TOKEN_INTERVAL_S)
            for system in systems:
                found = send_load(
                    system, "--stream", "--clients", str(streams), "--ramp-s", str(streams / 16), seconds=seconds
                )
                print(
                    f"{system.name}, {streams} streams of 50 tokens/s: a token comes p50 "
                    f"{1000 * found['token_delay_p50_s']:.0f} ms, p99 {1000 * found['token_delay_p99_s']:.0f} ms after "
                    f"the model sent it; {found['tokens_per_s']:.0f} tokens/s, failed {found['failed'] or 0}"
                )
