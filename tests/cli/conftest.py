"""Where are the fakes that the tests of the commands share with those of the API?"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "http"))
