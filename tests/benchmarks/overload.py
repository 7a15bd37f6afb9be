"""Measures the service under ten times as many turns as it may run.

    python tests/benchmarks/overload.py [--mode haproxy|default] [--seconds 60] [--rate 300] [--places 32]

Starts it on a Ray of its own, with a model that takes a second and places for 32 turns; asks for a peak, then for the
flood, by `tests/service/flood.py` in a process of its own. Prints what share of the peak was answered during the flood,
how long admitted and refused turns took, and after how long the service was as before. With `--places 0` the places
follow what the agents can hold; then the peak is what `--at-once` clients get, and the rate has to be above it. The
flood runs with a high priority, where that is allowed: else its own waiting for a core counts as the service's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "service")]

from running_service import GUARDS, started  # noqa: E402 - after the path
from slow_model import slow_model  # noqa: E402

from tests.benchmarks.systems import production  # noqa: E402

KEY_NAME = "OVERLOAD_ADMIN_KEY"
WANTED = {"goodput": 0.9, "refused_s": 0.05, "recovered_s": 5.0}


def _main(mode: str, rate: float, seconds: float, places: int, at_once: int) -> None:
    admission = {"max_turns": places, "max_waiting": places, "max_wait_s": 2} if places else {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(production(folder) if mode == "haproxy" else GUARDS)
        url = stack.enter_context(slow_model())
        configuration = {
            "model": {"name": "openai:slow", "base_url": url, "api_key_env": "STUB_KEY"},
            "admission": admission,
            "access": {"admin_key_env": KEY_NAME},
        }
        os.environ[KEY_NAME] = key = secrets.token_urlsafe(32)
        (folder / "overload.yaml").write_text(yaml.safe_dump(configuration))
        service = stack.enter_context(started(folder, folder / "overload.yaml"))
        flood = ["nice", "-n", "-15", sys.executable, str(TESTS / "service" / "flood.py"), service.url, "--key", key]
        command = [*flood, "--rate", str(rate), "--seconds", str(seconds), "--at-once", str(places or at_once)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 120)
    found = json.loads(ran.stdout)
    share = found["goodput_per_s"] / found["peak_per_s"]
    print(f"{mode}: {found['sent']} turns sent in {seconds:.0f} s, {rate:.0f} a second")
    print(f"  answered {found['answered']}, refused {found['refused']}, neither {len(found['wrong'])} {found['wrong']}")
    print(f"  goodput {found['goodput_per_s']:.1f}/s of a peak of {found['peak_per_s']:.1f}/s: {share:.0%}, wanted 90%")
    print(
        f"  admitted p50 {found['admitted_p50_s']:.2f} s, p99 {found['admitted_p99_s']:.2f} s; "
        f"at the peak p99 {found['peak_p99_s']:.2f} s"
    )
    p50_ms, p99_ms = 1000 * found["refused_p50_s"], 1000 * found["refused_p99_s"]
    print(f"  refused p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, wanted {1000 * WANTED['refused_s']:.0f} ms")
    print(f"  as before {found['recovered_s']:.1f} s after the end, wanted {WANTED['recovered_s']:.0f} s")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("haproxy", "default"), default="haproxy")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--at-once", type=int, default=256)
    given = parser.parse_args()
    _main(given.mode, given.rate, given.seconds, given.places, given.at_once)
