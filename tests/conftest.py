"""What all tests share. With CONVSCOPE_CHECK_ANNOTATIONS=1 they check shapes and types in annotations, as .ci/run does."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int64, UInt8

    from convscope.data import DataBundle

# Two workers on two cores: more threads than that only wait for one another. PyTorch reads it when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COLUMNS", "120")
# Recipes train in fp32 on every machine unless a test wants bf16: which is faster would be measured, and hang on the load.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
# Temporary files are kept in memory where there is room: on a disk SQLite waits some 20 ms at each commit.
_MEMORY = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
# No test downloads; without this the Hub's client tries for half a minute before it says that there is no network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples on every machine: a suite that was green stays so. HYPOTHESIS_SEED=random looks for others.
settings.register_profile("same", derandomize=os.environ.get("HYPOTHESIS_SEED") != "random", deadline=None)
settings.load_profile("same")

if os.environ.get("CONVSCOPE_CHECK_ANNOTATIONS"):
    from tests.typechecking import check_annotations

    check_annotations()

# As in a command; and what the tests' files are is not looked through again and again.
gc.set_threshold(10_000, 20, 20)


def pytest_collection_finish() -> None:
    """All that was collected stays."""
    gc.collect()
    gc.freeze()


pytest_plugins = ["tests.kept", "tests.reported", "tests.planted", "tests.gpus"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("CONVSCOPE_CACHE", str(cache))
    monkeypatch.setenv("HF_HOME", str(cache / "hub"))


@pytest.fixture
def random_state_kept() -> Iterator[None]:
    """Fails a test that moves PyTorch's or NumPy's global random state."""
    import numpy as np
    import torch

    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.fixture
def annotations_unchecked() -> Iterator[None]:
    """As for users, whose wrong types are to get a message of ours; in tests the annotations refuse them first."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def write_spots(path: Path, n: int = 180, channels: int = 3, seed: int = 0, side: int = 8) -> Path:
    """An .npz of small noisy images, whose class is the third of the image that has a bright spot."""
    import numpy as np

    images, labels = spots_of(n, channels, seed, side)
    np.savez(path, x=images, y=labels)
    return path


def spots_of(
    n: int, channels: int = 3, seed: int = 0, side: int = 8
) -> tuple[UInt8[np.ndarray, "n H W C"], Int64[np.ndarray, " n"]]:
    """The images and their classes."""
    import numpy as np

    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = generator.integers(0, 90, (n, side, side, channels), dtype=np.uint8)
    third = side // 3
    for image, label in zip(images, labels, strict=True):
        row = generator.integers(0, side - 2)
        image[row : row + 2, label * third : label * third + 2] = 255
    return images, labels


@pytest.fixture
def spots(tmp_path: Path) -> Callable[..., DataBundle]:
    """Makes and loads a small set of three classes that a small network learns in a few epochs."""

    def make(n: int = 180, **settings: object) -> DataBundle:
        from convscope.data import load_data

        return load_data(str(write_spots(tmp_path / "spots.npz", n)), **settings)

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, for tests that need one."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONVSCOPE_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data: set CONVSCOPE_DATA to a folder that holds cifar10 and mnist")
    return folder
