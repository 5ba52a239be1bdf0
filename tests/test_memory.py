import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from convscope.base.memory import tune_memory
if sys.argv[1] == "kept":
    tune_memory()
for _ in range(20):
    torch.empty(2**24).fill_(0)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(2**24).fill_(0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_what_is_freed_is_not_fetched_from_the_system_anew() -> None:
    faults = {
        name: int(subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True).stdout)
        for name in ("plain", "kept")
    }
    assert faults["kept"] < faults["plain"] / 100
