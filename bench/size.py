"""How large the house is: lines, functions, names; files and seconds of a look, and of --help.

    python bench/size.py RUN      (RUN: the folder of a trained run, such as runs/lines)

Lines are those of src; code lines leave out blank lines, comments and docstrings. Files are those of convscope of which a
function is called in `convscope look RUN grad_cam --image 7`; seconds are of the processor, the least of three.
"""

from __future__ import annotations

import ast
import importlib
import io
import pkgutil
import resource
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path

import convscope

SOURCE = Path(convscope.__file__).parent
_FILES = """
import inspect, sys
files = set()
def entered(frame, event, given):
    if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, no module or class
        files.add(frame.f_code.co_filename)
sys.setprofile(entered)
from convscope.cli import run
run(sys.argv[2:])
sys.setprofile(None)
print(sum(file.startswith(sys.argv[1]) for file in files), file=sys.stderr)
"""


def main() -> None:
    run = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    files = sorted(SOURCE.rglob("*.py"))
    texts = [file.read_text("utf-8") for file in files]
    trees = [ast.parse(text) for text in texts]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    print(f"{'files':28} {len(files):8,}")
    print(f"{'lines':28} {sum(text.count(chr(10)) for text in texts):8,}")
    print(f"{'code lines':28} {sum(map(_code_lines, texts, trees)):8,}")
    print(f"{'functions':28} {sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes):8,}")
    print(f"{'classes':28} {sum(isinstance(node, ast.ClassDef) for node in nodes):8,}")
    print(f"{'exported names':28} {_exported():8,}")
    with tempfile.TemporaryDirectory() as folder:
        look = ["look", run, "grad_cam", "--image", "7", "--out", f"{folder}/look.png"]
        done = subprocess.run(
            [sys.executable, "-c", _FILES, str(SOURCE), *look], capture_output=True, text=True, check=True
        )
        print(f"{'files entered by a look':28} {int(done.stderr.split()[-1]):8,}")
        for words in (look, ["look", "--help"], ["--help"]):
            print(f"{'CPU s of ' + ' '.join(words[:1] if len(words) > 2 else words):28} {_seconds(words):8.2f}")


def _code_lines(text: str, tree: ast.Module) -> int:
    kept = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        for line in range(token.start[0], token.end[0] + 1)
        if token.string
    }
    for node in ast.walk(tree):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text:
            kept -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(kept)


def _exported() -> int:
    rooms = [name for _, name, is_room in pkgutil.iter_modules([str(SOURCE)]) if is_room]
    return sum(len(getattr(importlib.import_module(f"convscope.{room}"), "__all__", ())) for room in rooms)


def _seconds(words: list[str]) -> float:
    """The least of three."""
    found = []
    for _ in range(3):
        before = _spent()
        subprocess.run([sys.executable, "-m", "convscope", *words], capture_output=True, check=True)
        found.append(_spent() - before)
    return min(found)


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
