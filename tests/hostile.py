"""Run folders with a file that no convscope has written: damaged, of another kind, or made to do harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def _holds(name: str, content: str | bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def _is_folder(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return damage


def _is_pipe(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return damage


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
_FILES = ("spec.yaml", "environment.json", "metrics.json", "history.parquet", "outcome.json")

DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"{name} is empty": _holds(name, "") for name in _FILES},
    **{f"{name} is null": _holds(name, "null") for name in _FILES},
    **{f"{name} is a list": _holds(name, "[]") for name in _FILES},
    **{f"{name} is no text": _holds(name, b"\xff\xfe\x00\x80") for name in _FILES},
    **{f"{name} is a folder": _is_folder(name) for name in _FILES},
    **{f"{name} is a pipe": _is_pipe(name) for name in _FILES if name != "outcome.json"},
    **{f"{name} is deep": _holds(name, "[" * 3_000 + "]" * 3_000) for name in _FILES},
    **{f"{name} is very deep": _holds(name, "[" * 400_000 + "]" * 400_000) for name in _FILES},
    **{f"{name} has a long number": _holds(name, '{"data": ' + "9" * 6_000 + "}") for name in _FILES},
    "spec.yaml is long": _holds("spec.yaml", "a: 1\n" * 500_000),
    "spec.yaml is a bomb": _holds("spec.yaml", _BOMB),
    "spec.yaml is in itself": _holds("spec.yaml", "a: &a [*a]\n"),
    "spec.yaml has keys of any kind": _holds("spec.yaml", "1: 2\nnull: 3\n[1, 2]: {4: 5}\n"),
    "spec.yaml has a large seed": _holds("spec.yaml", "recipe: {seed: 1" + "0" * 40 + "}\n"),
    "spec.yaml has half a character": _holds("spec.yaml", 'about: x\nnet: {name: "\\ud800"}\n'),
    "environment.json has lists": _holds("environment.json", '{"data": [1], "packages": 3, "parameters": [2]}'),
    "environment.json has half a character": _holds("environment.json", '{"data": {"name": "\\ud800"}, "packages": {}}'),
    "environment.json has a large number": _holds("environment.json", '{"data": {}, "parameters": 1' + "0" * 400 + "}"),
    "metrics.json has words": _holds("metrics.json", '{"accuracy": {"value": "x", "low": [], "high": null}}'),
    "metrics.json has a large number": _holds("metrics.json", '{"loss": {"value": 1' + "0" * 400 + ', "low": 1, "high": 1}}'),
    "outcome.json has another state": _holds("outcome.json", '{"state": "eaten", "message": ["by", "dog"]}'),
    "outcome.json has nothing": _holds("outcome.json", "{}"),
}  # fmt: skip
