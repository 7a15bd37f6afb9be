"""A process that allocates without end is stopped, and survives."""

from __future__ import annotations

import subprocess
import sys

GREEDY = """
from serve_app.deployments.tools import MB, limit_memory

limit_memory(256)
held = []
try:
    while True:
        held.append(bytearray(MB))
except MemoryError:
    taken = len(held)
    del held
print(taken)
print(len(bytearray(100 * MB)) // MB)
"""


def test_a_process_gets_no_more_than_its_limit_and_goes_on() -> None:
    ran = subprocess.run([sys.executable, "-c", GREEDY], capture_output=True, text=True, timeout=60, check=True)
    taken, again = map(int, ran.stdout.split())
    assert 200 <= taken <= 260
    assert again == 100
