"""The small LED of tests/model and the writers of the vectors serve the oracle's tests too."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent.parent / folder) for folder in ("model", "vectors")]
