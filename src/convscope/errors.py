"""What can go wrong, and what a user can do about it.

ConvscopeError
├── RequestError            the request cannot be met as it was put            (exit status 2)
│   ├── UnknownNameError    a name that is not there; lists what there is
│   ├── SettingError        a setting with an impossible value; names its key
│   ├── DataError           files that cannot be read as images; names the file
│   ├── NetworkError        a network that does not fit its input or cannot be built
│   ├── RunFolderError      a folder that is no run, or another run's, or too new
│   │   └── FolderInUseError    a folder in which another process is training
│   ├── UntrustedCodeError  a run folder that names code of its maker's, which is not trusted
│   ├── MissingPackageError a package that this request needs and is not installed
│   └── BrokenPackageError  a package that is installed, and whose import fails
└── FailedError             it was right to try, and it failed on the way      (exit status 1)
    ├── WriteError          a file that cannot be written: no room, no rights
    │   └── ReadOnlyError       a folder in which nothing may be written
    ├── DivergedError       the loss is no number any more
    ├── WorkerError         a process that did a part of the work ended before its time
    │   └── NodeLostError       the machine of a cluster on which it ran is no more
    ├── TrackerError        TensorBoard, MLflow or Weights & Biases cannot be told
    └── StoppedError        the user stopped it; says how to go on

Every message is one line that says what was given, what was expected, and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 120, 120
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = 8


def shortened(value: Any) -> str:
    """A value as a message quotes it: its `repr` in one line, with the middle left out of what is long, wide or deep."""
    text = " ".join(line.strip() for line in _REPR.repr(value).splitlines())  # an array's has several lines
    return text if len(text) <= 200 else f"{text[:120]} … {text[-60:]}"


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in a line; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system answers where nothing may be written."""

_CURES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.ENAMETOOLONG: "a name has at most 255 bytes: choose a shorter one",
    **dict.fromkeys(READ_ONLY, "choose another place, or have its rights changed"),
}


def system_error_in_words(error: OSError) -> str:
    """What the operating system refused, at which file, and a remedy where one is known."""
    cure = f"; {_CURES[error.errno]}" if error.errno in _CURES else ""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}{cure}"


class ConvscopeError(Exception):
    """The root of all errors that convscope raises on purpose."""

    exit_status = 1


class RequestError(ConvscopeError):
    """The request cannot be met as it was put."""

    exit_status = 2


class UnknownNameError(RequestError):
    """A name that is not there: 'layer 'conv9' is not in this network; it has conv1, conv2'."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "here") -> None:
        names = [str(k) for k in known]
        close = get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(names[:40]) + (" …" if len(names) > 40 else "")
        super().__init__(f"{kind} {name!r} is not {where}; {hint}there is {listed or 'none'}")


class SettingError(RequestError):
    """A setting with an impossible value; the message begins with its key."""


class DataError(RequestError):
    """Files that cannot be read as a labelled set of images; the message names the file and a remedy."""


class NetworkError(RequestError):
    """A network that does not fit its input, or that cannot be built from what was given."""


class RunFolderError(RequestError):
    """A folder that holds no run, another run, or a run of a newer convscope."""


class FolderInUseError(RunFolderError):
    """A run folder in which another process is training at this moment."""


class UntrustedCodeError(RequestError):
    """A run folder whose network is code that the folder names; it is run only where its maker is trusted."""


class MissingPackageError(RequestError):
    """A package that is needed for this and is not installed."""

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        what = f"convscope[{extra}]" if extra else package
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed; pip install '{what}'")


class BrokenPackageError(RequestError):
    """A package that is installed, and whose import fails: one that is damaged, or made for other versions of what it needs."""

    def __init__(self, package: str, purpose: str, reason: str, remedy: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is installed and cannot be imported ({reason}); {remedy}"
        )


class FailedError(ConvscopeError):
    """It was right to try, and it failed on the way."""


class WriteError(FailedError):
    """A file that cannot be written: there is no room, or it may not be."""


class ReadOnlyError(WriteError):
    """A folder in which nothing may be written; what need not be kept is worked out all the same."""


class DivergedError(FailedError):
    """The training loss became infinite, not a number, or exploded."""


class WorkerError(FailedError):
    """A process that did a part of the work ended before its time; the message says how."""


class NodeLostError(WorkerError):
    """The machine of a cluster that did a part of the work was switched off, or cannot be reached any more."""


class TrackerError(FailedError):
    """A tracker that cannot be started; the message says which and why."""


class StoppedError(FailedError):
    """The user stopped it; the message says how to go on."""
