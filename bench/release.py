"""Builds the wheel and the source archive, installs each into an empty environment, and tries it from there.

    python bench/release.py [--keep FOLDER] [--only wheel|sdist]

From the wheel: the commands and the Python of the README, on less data (see REPLACED), in a folder without the sources.
From the source archive: that it installs, and lists its analyses. Versions are those of constraints.txt, and `pip check` must
be content.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
REPLACED = {"study lines": "study lines --set data.limit=4800 --set recipe.epochs=2", "limit=9600": "limit=4800"}
LISTENS = "convscope serve"
PACKAGE_DATA = """
from importlib.resources import files
package = files("convscope")
for folder, ending in [("study/shipped", ".yaml"), ("report/templates", ".html"), ("report/static", ".css"),
                       ("app/static", ".js"), ("app/templates", ".html"), ("share/templates", ".md"),
                       ("courses/templates", ".html")]:
    assert any(each.name.endswith(ending) for each in package.joinpath(folder).iterdir()), folder
assert package.joinpath("py.typed").is_file()
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", type=Path, help="where to leave the files; dist/ by default")
    arguments.add_argument("--only", choices=("wheel", "sdist"))
    given = arguments.parse_args()
    dist = (given.keep or ROOT / "dist").resolve()
    _run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)])
    for kind, pattern in (("wheel", "*.whl"), ("sdist", "*.tar.gz")):
        if given.only in (None, kind):
            newest = max(dist.glob(pattern), key=lambda file: file.stat().st_mtime)
            with TemporaryDirectory() as folder:
                _try(newest, kind, Path(folder))
    print("release-check: passed")


def _try(file: Path, kind: str, folder: Path) -> None:
    print(f"== {file.name}, {file.stat().st_size:,} bytes", flush=True)
    venv.create(folder / "venv", with_pip=True)
    python, work = folder / "venv" / "bin" / "python", folder / "work"
    work.mkdir()
    _run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", file], work)
    _run([python, "-m", "pip", "check"], work)
    _run([python, "-c", PACKAGE_DATA], work)
    _run([python.with_name("convscope"), "--version"], work)
    for command in _commands() if kind == "wheel" else ["convscope look --list"]:
        _run([python.with_name("convscope"), *shlex.split(command)[1:]], work)
    if kind == "wheel":
        [code] = re.findall(r"```python\n(.*?)```", _readme(), re.DOTALL)
        _run([python, "-c", code], work)


def _commands() -> list[str]:
    """The convscope commands of the README that end by themselves and need no data of the reader's."""
    blocks = re.findall(r"```sh\n(.*?)```", _readme(), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    runs = [line for line in lines if line.startswith("convscope") and "photos" not in line and "mine" not in line]
    assert runs
    return [line for line in runs if not line.startswith(LISTENS)]


def _readme() -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    for whole, less in REPLACED.items():
        assert whole in text
        text = text.replace(whole, less)
    return text


def _run(command: list[str | Path], folder: Path = ROOT) -> None:
    print("$", " ".join(map(str, command))[:110].splitlines()[0], flush=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(list(map(str, command)), cwd=folder, env=clean, check=True)


if __name__ == "__main__":
    main()
