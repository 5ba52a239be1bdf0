"""Answers to any number of images in a folder of parquet files: resumed after a kill, the same rows by any executor."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from convscope.compute import LocalProcesses
from convscope.data import ImageStream
from convscope.errors import DataError, RunFolderError
from convscope.runs import Run, counts_of, open_run, predict_parts
from tests.study.sweeps import study_text, worked

N = 45


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    study, store = worked(folder / "study", study_text(folder, "recipe.rate: [0.01]", epochs=1))
    store.close()
    return open_run(study.runs[0].path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in two folders, one of which is none, and a parquet file of others."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for n in range(N):
        (folder / f"{n % 2}").mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / f"{n % 2}" / f"{n:03}.png")
    (folder / "0" / "bad.png").write_bytes(b"no image")
    content = [{"bytes": file.read_bytes(), "path": None} for file in sorted((folder / "1").iterdir())]
    table = pa.table({"image": pa.array([*content[:-1], {"bytes": b"none either", "path": None}])})
    pq.write_table(table, folder / "shots.parquet", row_group_size=7)
    return folder


def read(files: list[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def test_the_rows_are_those_of_predict(run: Run, photos: Path, tmp_path: Path) -> None:
    alone = predict_parts(run, [photos], tmp_path / "alone", shard=20, top=2, probabilities=True)
    assert [len(pd.read_parquet(file)) for file in alone] == [20, 20, N + 1 - 40]
    pd.testing.assert_frame_equal(read(alone), run.predict(photos, top=2, probabilities=True, batch=20))
    with LocalProcesses(2) as executor:
        shared = predict_parts(run, [photos], tmp_path / "shared", executor, shard=20, top=2, probabilities=True)
    assert [file.read_bytes() for file in shared] == [file.read_bytes() for file in alone]
    counts, problems = counts_of(alone, ["class"])
    assert counts["class"].total() == N
    assert problems == [(str(photos / "0" / "bad.png"), "is no image")]


def test_the_rows_of_parquet_files(run: Run, photos: Path, tmp_path: Path) -> None:
    files = [*sorted((photos / "1").iterdir())]
    rows = read(predict_parts(run, [photos / "shots.parquet"], tmp_path / "out", shard=5))
    assert list(rows["file"]) == [f"{photos / 'shots.parquet'}:{n}" for n in range(len(files))]
    expected = run.predict(files, batch=5)
    assert list(rows["class"][:-1]) == list(expected["class"][:-1])
    assert rows["problem"].iloc[-1] == "is no image"
    assert len(ImageStream([photos / "0", photos / "shots.parquet"])) == 24 + len(files)


KILLED = """
import os, signal, sys
from pathlib import Path
from convscope.runs import open_run, predict_parts
left = [4]
def advance(n):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
predict_parts(open_run(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]), shard=4, advance=advance)
"""


def test_after_a_kill_no_row_is_missing_or_there_twice(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, run.path, photos, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert len(before) == 4
    steps: list[int] = []
    files = predict_parts(run, [photos], out, shard=4, advance=steps.append)
    rows = read(files)
    assert set(Counter(rows["file"]).values()) == {1}
    assert len(rows) == N + 1 == sum(steps)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    pd.testing.assert_frame_equal(rows, run.predict(photos, batch=4))


def test_a_folder_of_other_predictions_is_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_parts(run, [photos / "0"], out, shard=20)
    with pytest.raises(RunFolderError, match=r"holds other predictions \(settings differ\); choose another --out"):
        predict_parts(run, [photos / "0"], out, shard=20, top=2)
    with pytest.raises(RunFolderError, match=r"holds other predictions \(images, digest differ\)"):
        predict_parts(run, [photos], out, shard=20)
    (out / "predictions.json").write_text("[]")
    with pytest.raises(
        RunFolderError, match=r"holds other predictions \(weights, settings, images, digest, shard differ\)"
    ):
        predict_parts(run, [photos], out)
    with pytest.raises(RunFolderError, match="holds no predictions"):
        predict_parts(run, [photos / "0"], photos / "0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        predict_parts(run, [tmp_path / "empty"], tmp_path / "never")
    assert not (tmp_path / "never").exists()
