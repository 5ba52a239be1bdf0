"""Small images and image folders, made on the spot, and what every data set must keep to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from convscope.data import DataBundle


def noise(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Random pixels (H, W) or (H, W, 3), no two seeds alike."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, encoding: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding)
    return buffer.getvalue()


def make_folder(root: Path, per_class: int = 10, splits: tuple[str, ...] = (), size: int = 8) -> Path:
    """An image folder with the classes ant and bee; its k-th image is `noise(size, size, 3, k)`."""
    k = 0
    for split in splits or ("",):
        for name in ("ant", "bee"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                (folder / f"{i:03}.png").write_bytes(encoded(noise(size, size, 3, k)))
                k += 1
    return root


def assert_apart(data: DataBundle) -> None:
    """Fails where a test image is in train or val, by content, or a row is in two sets."""
    contents = {
        name: {bytes(image.numpy()) for image in part.pixels[part.index]}
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    assert not contents["test"] & (contents["train"] | contents["val"])
    assert not set(data.train.index.tolist()) & set(data.val.index.tolist())


def write_parquet(file: Path, images: list[bytes | None], labels: list, features: dict | None = None) -> None:
    schema = pa.schema(
        [
            ("picture", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.array(labels).type),
        ]
    )
    if features:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    rows = [{"bytes": image, "path": None} for image in images]
    pq.write_table(pa.table([pa.array(rows, schema.field(0).type), pa.array(labels)], schema=schema), file)
