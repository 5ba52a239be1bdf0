"""Python imports this at the start of every process that a test starts: tests/conftest.py puts the folder on its path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from tests.zoo import open_zoo_on_import

open_zoo_on_import()
