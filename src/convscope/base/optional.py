"""Optional packages: imported when a request needs one; what stands in the way is said in one line."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

from convscope.errors import BrokenPackageError, MissingPackageError

_OTHER_BUILD = re.compile(r"operator (\w+)::\w+ does not exist|undefined symbol")


def import_optional(module: str, purpose: str, extra: str | None = None, package: str | None = None) -> ModuleType:
    """An imported module of a package that convscope does not depend on.

    Args:
        module: its dotted name.
        purpose: what needs it, the first words of the error.
        extra: convscope's extra that installs it.
        package: its name for pip, where that is not the module's own.
    Raises:
        MissingPackageError: the package, or one that it imports, is not installed.
        BrokenPackageError: it is installed, and its import fails.
    """
    root = module.partition(".")[0]
    try:
        return import_module(module)
    except Exception as error:  # a damaged package, or one made for other versions, may raise anything
        absent = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if absent and find_spec(absent) is None:
            raise MissingPackageError(package or root if absent == root else absent, purpose, extra) from None
        raise BrokenPackageError(package or root, purpose, _reason(error), _remedy(package or root, error)) from None


def _reason(error: Exception) -> str:
    first_line = (str(error).strip() or "no reason given").splitlines()[0]
    return first_line if isinstance(error, ImportError) else f"{type(error).__name__}: {first_line}"


def _remedy(package: str, error: Exception) -> str:
    other_build = _OTHER_BUILD.search(str(error))
    if other_build is None:
        return f"repair or reinstall {package}"
    return (
        f"{other_build[1] or package} was made for another build of PyTorch than {version('torch')}, which is installed: "
        "install the two together, from the same index"
    )
