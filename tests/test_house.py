"""The house itself: arrows between rooms, faces, the error tree, and that looking at help loads nothing heavy."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import convscope
from convscope import errors

ROOT = Path(__file__).parents[1]
ROOMS = sorted({path.parent.name for path in (ROOT / "src" / "convscope").glob("*/__init__.py")} - {"base"})
"""Those with a face; what every room stands on, in base/, is taken file by file."""


def test_arrows_point_downwards() -> None:
    """The contracts are in pyproject.toml; import-linter names an import that breaks one."""
    found = subprocess.run(["lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False, env=_environment())
    assert found.returncode == 0, found.stdout


LOAD_UPWARDS = """
import sys, pkgutil
from importlib import import_module
above = sys.argv[1:]
while above:
    name = above.pop()
    for room in name.split(" | "):
        package = import_module(room)
        for file in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{room}."):
            import_module(file.name)
    for one in (room for names in above for room in names.split(" | ")):
        loaded = one != "convscope.base" and sorted(file for file in sys.modules if file == one or file.startswith(f"{one}."))
        assert not loaded, f"{name} loads {loaded[0]}"
"""


def test_a_room_is_loaded_without_those_above_it() -> None:
    """From the bottom up, every file of every room, in one process."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer for layer in contracts[0]["layers"] if not layer.startswith("(")]
    found = subprocess.run(
        [sys.executable, "-c", LOAD_UPWARDS, *layers], capture_output=True, text=True, check=False, env=_environment()
    )
    assert found.returncode == 0, found.stderr.splitlines()[-1]


def test_no_function_below_the_rim_reaches_for_the_whole_package() -> None:
    """`import convscope` inside a function, for what lies above: such an arrow is unseen by import-linter."""
    inside = ROOT / "src" / "convscope"
    for file in inside.rglob("*.py"):
        if file.relative_to(inside).parts[0] not in ("cli", "courses", "__init__.py", "__main__.py"):
            assert not re.search(r"^\s*import convscope\b", file.read_text(), re.M), file.relative_to(inside)


def _environment() -> dict[str, str]:
    import os

    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_entered_at_its_face(room: str) -> None:
    """`from convscope.data.store import …` is for files of data/ alone; the others say `from convscope.data import …`."""
    inside = ROOT / "src" / "convscope"
    for file in inside.rglob("*.py"):
        own = file.relative_to(inside).parts[0]
        if own in (room, "__init__.py"):  # the package's face names files, see there
            continue
        for line in file.read_text().splitlines():
            assert not line.strip().startswith(f"from convscope.{room}."), f"{file.relative_to(inside)}: {line.strip()}"


def test_nothing_draws_from_the_random_module() -> None:
    """Its state is the one that lens tests cannot compare, for checking annotations moves it."""
    files = (ROOT / "src").rglob("*.py")
    assert not [file.name for file in files if re.search(r"^\s*(import|from) random\b", file.read_text(), re.M)]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_and_what_it_offers(room: str) -> None:
    face = import_module(f"convscope.{room}")
    assert face.__doc__
    if room != "cli":
        assert face.__all__ == sorted(face.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
        assert all(hasattr(face, name) for name in face.__all__)


@pytest.mark.parametrize("name", convscope.__all__)
def test_the_public_face_is_there(name: str) -> None:
    assert getattr(convscope, name) is not None


def test_an_unknown_name_of_the_face() -> None:
    with pytest.raises(AttributeError, match=r"it has .*load_data"):
        convscope.no_such  # noqa: B018


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = [
        line.split("──")[-1].split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if "Error" in line and "─" in line
    ]
    real = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert sorted(["ConvscopeError", *drawn]) == sorted(real)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from convscope.cli import run; run(['--help']); run(['study', '--help']);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'pandas', 'numpy', 'datasets', 'altair', 'PIL'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert found.stdout.splitlines()[-1] == "[]"


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["dev"] + extras["docs"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert {_package(want) for want in wanted} <= {_package(line) for line in lines if "==" in line}


def _package(requirement: str) -> str:
    return re.split(r"[>=\[ ]", requirement)[0].lower().replace("_", "-")
