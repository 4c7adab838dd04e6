"""Where things lie that several tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"  # official vectors and test pictures; not part of the repository
