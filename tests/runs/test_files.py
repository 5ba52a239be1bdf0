"""Files are written whole or not at all, and what stands in the way is told in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convscope.errors import FailedError, ReadOnlyError, WriteError
from convscope.runs import load_weights, write_whole


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "picture.png"
    write_whole(path, b"first")
    write_whole(path, "sécond")
    assert path.read_bytes() == "sécond".encode()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize("below", ["picture.png", "deeper/picture.png", "deeper/still/picture.png"])
def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(FailedError) as caught:
        write_whole(file / below, b"lost")
    assert (
        str(caught.value) == f"{file / below} cannot be written: {file} is a file, not a folder; choose another --out"
    )
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_where_the_file_should_be_stays_as_it_is(tmp_path: Path) -> None:
    (folder := tmp_path / "folder").mkdir()
    with pytest.raises(FailedError, match="folder cannot be written: Is a directory; choose another --out"):
        write_whole(folder, b"lost")
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EROFS, ReadOnlyError), (errno.EACCES, ReadOnlyError), (errno.EIO, WriteError)]
)
def test_the_first_error_is_told_where_the_temporary_file_cannot_be_removed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(FailedError, match=f"{os.strerror(number)}; choose another --out") as caught:
        write_whole(tmp_path / "file", b"")
    assert type(caught.value) is kind


def test_weights_reach_a_network_whose_state_dict_gives_copies(tmp_path: Path) -> None:
    """As those of quantised or sharded modules do: what is copied into it is lost."""

    class Copied(nn.Linear):
        def state_dict(self, *given: Any, **named: Any) -> Any:
            return {name: tensor.clone() for name, tensor in super().state_dict(*given, **named).items()}

    net = Copied(2, 3)
    load_weights(net, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path)
    assert net(torch.ones(1, 2)).tolist() == [[3.0, 3.0, 3.0]]
