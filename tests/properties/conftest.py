"""Where the tables of tests are that mutants are tried on."""

import sys
from pathlib import Path

UNIT = Path(__file__).parent.parent / "unit"
sys.path[:0] = [str(UNIT / name) for name in ("core", "watching", "operations")]
