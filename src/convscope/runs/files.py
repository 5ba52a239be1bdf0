"""Tensors in safetensors. No pickle is ever read or written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from convscope.compute import (
    check_writable as check_writable,  # both belong to this room's face, too
    write_whole,
)
from convscope.errors import RunFolderError

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How what torch.save writes begins: a zip, or before PyTorch 1.6 a bare pickle."""

_OF_PICKLE = (
    "{path} is a pickle, as torch.save writes it, which may run any code when opened; convert it: python -c "
    "\"import torch, safetensors.torch as s; s.save_file({{k: v.clone() for k, v in torch.load('{path}', "
    "weights_only=True).items()}}, '{new}')\""
)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes tensors with a card of JSON values beside them in the file's header, whole or not at all."""
    packed = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    write_whole(path, save(packed, metadata={"convscope": json.dumps(card, ensure_ascii=False)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, and its card (empty where another program wrote it).

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("convscope", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        with suppress(OSError), path.open("rb") as file:
            if file.read(4).startswith(_PICKLES):
                raise RunFolderError(_OF_PICKLE.format(path=path, new=path.with_suffix(".safetensors"))) from None
        raise RunFolderError(f"{path} is damaged and cannot be read: {error}") from None


def load_weights(net: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copies named tensors into a network's parameters and buffers, in place, keeping dtype, device and layout.

    Raises:
        RunFolderError: names or shapes differ from the network's, or the kinds of numbers: whole, real or complex ones.
    """
    own = net.state_dict()
    # of what get_extra_state gives the shape may be any
    common = [n for n in own if n in tensors and n.rpartition(".")[2] != "_extra_state"]
    pairs = [(n, tensors[n], own[n]) for n in common]
    wrong = [f"{n} missing" for n in own if n not in tensors] + [f"{n} unknown" for n in tensors if n not in own]
    wrong += [f"{n} is {tuple(new.shape)}, not {tuple(old.shape)}" for n, new, old in pairs if new.shape != old.shape]
    wrong += [
        f"{n} is of type {str(new.dtype)[6:]}, not {str(old.dtype)[6:]}"
        for n, new, old in pairs
        if _kind(new) != _kind(old)
    ]
    if wrong:
        raise RunFolderError(f"{where} does not belong to this network: {'; '.join(wrong[:3])}")
    own.update(tensors)  # with the versions of its modules, which a file of tensors lacks
    net.load_state_dict(own)


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    """What no copy may change: floats of any size go into each other, quantised weights do not become real ones."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
