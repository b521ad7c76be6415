"""Lets the tests of this folder import its other files as `drawn`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
