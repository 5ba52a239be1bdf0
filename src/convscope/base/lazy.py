"""Rooms whose files are loaded when one of their names is first used, so that a verb loads no more than it needs.

A table of runs needs no PyTorch, which alone takes two seconds to load. The face of such a room states its names as every
face does, but for the type checker alone, and hands them to `load_when_used`, which makes `__all__` of them:

    if TYPE_CHECKING:
        from convscope.ROOM.file import name as name
    else:
        load_when_used(__name__)
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Face(ModuleType):
    """A package that imports a name from the file that its source says, once it is asked for it."""

    _files: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._files:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; it has {', '.join(self._files)}")
        file = self._files[name]
        value = import_module(f"{file}.{name}") if file == self.__name__ else getattr(import_module(file), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # Python binds each file that it imports in the package: a function of that file's name wins.
        is_room = self._files.get(name) == self.__name__
        if is_room or not (isinstance(value, ModuleType) and name in self._files):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._files})


def load_when_used(room: str) -> None:
    """Makes the names that a package imports for the type checker come when they are first used.

    Args:
        room: the package's `__name__`, of whose source all `from … import …` are read; `from room import …` names its
            own files.
    """
    module = sys.modules[room]
    source = module.__loader__.get_source(room)  # type: ignore[union-attr]
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    files = {alias.name: node.module for node in imports for alias in node.names}
    files.pop("load_when_used")
    module.__dict__["_files"] = {
        name: file for name, file in files.items() if file and (file == room or file.startswith(f"{room}."))
    }
    module.__dict__["__all__"] = sorted(module._files, key=lambda name: (not name.isupper(), name.islower(), name))
    module.__class__ = _Face
