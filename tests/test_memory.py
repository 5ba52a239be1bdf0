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


GIVEN_BACK = """
import torch
from convscope.base.memory import memory_returned, tune_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

tune_memory()
with memory_returned():
    kept = [torch.zeros(2**24) for _ in range(8)]  # 512 MB
    top = torch.zeros(1)
    del kept
    before = resident()
print(before - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_was_kept_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True).stdout
    assert int(said) > 500e6
