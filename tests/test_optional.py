"""Packages that are installed and broken: real ones, on the path, whose import fails as it does in the field."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from convscope.base.optional import import_optional
from convscope.cli import run
from convscope.errors import BrokenPackageError, MissingPackageError
from convscope.nets import build_net, natural_input
from convscope.study import sweep
from convscope.training import check_trackers
from tests.zoo import FOLDER

OTHER_BUILD = 'raise RuntimeError("operator torchvision::nms does not exist\\nand more lines")'
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package of one file in front of all others; it and those that import it are as before afterwards."""
    before: dict[str, ModuleType] = {}
    touched: set[str] = set()

    def put(name: str, source: str, *importers: str) -> None:
        before.update(_taken_out({name, *importers}))
        touched.update((name, *importers))
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield put
    _taken_out(touched)
    sys.modules.update(before)


def _taken_out(packages: set[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in packages}


@pytest.mark.parametrize(
    ("source", "error", "expected"),
    [
        ("import no_such_thing", MissingPackageError,
         r"^X needs the package 'no_such_thing', which is not installed; pip install 'no_such_thing'$"),
        ("from . import gone", BrokenPackageError,
         r"^X needs the package 'odd', which is installed and cannot be imported \(cannot import name 'gone' .*\); repair or"),
        ("import odd.gone", BrokenPackageError, r"\(No module named 'odd.gone'\); repair or reinstall odd$"),
        ("1 / 0", BrokenPackageError, r"\(ZeroDivisionError: division by zero\); repair or reinstall odd$"),
        ("raise ValueError", BrokenPackageError, r"\(ValueError: no reason given\); repair"),
        (OTHER_BUILD, BrokenPackageError,
         r"\(RuntimeError: operator torchvision::nms does not exist\); torchvision was made for another build of PyTorch than "
         rf"{re.escape(version('torch'))}, which is installed: install the two together"),
        ('raise ImportError("odd/_C.so: undefined symbol: _ZN3c10")', BrokenPackageError,
         "; odd was made for another build of PyTorch"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_package_is_one_line(install: Install, source: str, error: type, expected: str) -> None:
    install("odd", source)
    for _ in range(2):  # a second try says the same
        with pytest.raises(error, match=expected) as caught:
            import_optional("odd", "X")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 2


def test_a_package_that_is_not_there_is_named_as_pip_knows_it() -> None:
    with pytest.raises(MissingPackageError, match=r"'no-such', which is not installed; pip install 'convscope\[zoo\]'"):
        import_optional("no_such.part", "X", "zoo", "no-such")


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_torchvision_for_another_build_of_pytorch(
    install: Install,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    pretrained: bool,
) -> None:
    install("torchvision", OTHER_BUILD, "timm")
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])  # where timm is
    expected = (
        f"the network {package}:resnet18 needs the package '{package}', which is installed and cannot be imported"
    )
    options = {"pretrained": True} if pretrained else {}  # the fault is not that weights cannot be fetched
    with pytest.raises(BrokenPackageError, match=expected):
        build_net(f"{package}:resnet18", **options)
    with pytest.raises(BrokenPackageError, match=expected):
        natural_input(f"{package}:resnet18")
    complaint = _complaint(capsys, "anatomy", f"{package}:resnet18")
    assert complaint.startswith(f"convscope: {expected}")
    assert "torchvision was made for another build of PyTorch" in complaint


def test_every_optional_package_that_is_broken(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tensorboard", "mlflow", "wandb", "psycopg", "efficientnet_lite_pytorch", "captum"):
        install(name, 'raise OSError("libz.so: cannot open shared object file")')
    broken = "cannot be imported (OSError: libz.so: cannot open shared object file); repair or reinstall"
    for name in ("tensorboard", "mlflow", "wandb"):
        with pytest.raises(BrokenPackageError) as caught:
            check_trackers([name])
        assert f"tracking with {name} needs the package '{name}', which is installed and {broken} {name}" in str(
            caught.value
        )
    with pytest.raises(BrokenPackageError) as caught:
        sweep(
            {"data": "lines", "net": "net1", "sweep": {"net.width": [1, 2]}}, tmp_path / "x", storage="postgresql://h/d"
        )
    assert broken in str(caught.value)
    assert broken in _complaint(capsys, "anatomy", "convscope.nets.zoo:efficientnet_lite0")
    Image.new("RGB", (32, 32), (90, 120, 60)).save(tmp_path / "grey.png")
    files = ("--image", str(tmp_path / "grey.png"), "--out", str(tmp_path / "x.png"))
    assert broken in _complaint(capsys, "look", "lrp", "--net", "c4 M f8", *files)


def _complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command line that asks for what is not possible."""
    capsys.readouterr()
    assert run([*arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line
