"""The benchmarks are scripts that import each other as siblings; what compares with PyTorch needs PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

# Not skipped but not collected: continuous integration installs no PyTorch, and allows no skips.
collect_ignore = [] if importlib.util.find_spec("torch") else ["test_learning.py", "test_torch_peer.py"]
