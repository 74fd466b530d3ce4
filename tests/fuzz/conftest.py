"""The fuzz is made of modules that its scripts and its tests both import."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
