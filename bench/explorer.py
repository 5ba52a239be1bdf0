"""The explorer over real sockets: start, latency of edits, pages, memory, and many people at once.

    python bench/explorer.py RUN [--edits 300] [--people 50]

RUN is a finished run, better one with a report, whose scans are cached. The server is a process of its own, as
`convscope serve` starts it; the client is this one. Latencies are wall times, from sending an edit to the last frame of its
answer: the class probabilities, the edited image, six layers of twelve units, Grad-CAM of both images. Other work on the
machine shows in them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_now


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--edits", type=int, default=300)
    arguments.add_argument("--people", type=int, default=50)
    arguments.add_argument("--threads", type=int, default=None, help="of the server (OMP_NUM_THREADS)")
    given = arguments.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    settings = {} if given.threads is None else {"OMP_NUM_THREADS": str(given.threads)}
    start = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "convscope", "serve", str(given.run), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=os.environ | settings,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split("http://")[1].split("/")[0]
        page(address, "/api")
        print(f"start to the first page: {time.perf_counter() - start:.2f} s")
        page(address, "/lab")
        print(f"start to the lab, data and network loaded: {time.perf_counter() - start:.2f} s")
        layers = lab_layers(address)
        edits(address, layers, given.edits, server.pid)
        pages(address, layers)
        asyncio.run(people(address, layers, given.people, server.pid))
    finally:
        server.terminate()
        server.wait(20)


def page(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}") as answer:
        return answer.read()  # type: ignore[no-any-return]


def lab_layers(address: str) -> list[str]:
    """Those that the lab shows at first."""
    text = page(address, "/lab").decode().split('id="lab-data">')[1].split("</script>")[0]
    return [layer["name"] for layer in json.loads(text)["layers"] if layer["shown"]]


def request(seq: int, layers: list[str], image: int = 7) -> str:
    """A stroke that grows: point by point, as a brush sends it."""
    points = [[3 + (k * 7) % 20 / 2, 3 + (k * 3) % 20 / 2] for k in range(1 + seq % 40)]
    return json.dumps({
        "seq": seq, "image": image, "edits": [["paint", points, 2, "grey"]], "layers": layers, "lens": "grad_cam",
    })  # fmt: skip


def edits(address: str, layers: list[str], n: int, server: int) -> None:
    times: list[float] = []
    first: list[float] = []
    size = 0
    with connect_now(f"ws://{address}/lab/socket", max_size=None) as socket:
        for seq in range(20):
            size = answer(socket, seq, layers)[1]
        before = resident(server)
        for seq in range(n):
            start = time.perf_counter()
            seen, size = answer(socket, seq, layers)
            times.append(1000 * (time.perf_counter() - start))
            first.append(1000 * (seen - start))
        rest = max(0, 1000 - n)
        for seq in range(rest):
            answer(socket, seq, layers)
        after = resident(server)
    print(f"{n} edits, {len(layers)} layers and Grad-CAM, {size / 1000:.0f} kB: {percentiles(times)}")
    print(f"first bars of them: {percentiles(first)}")
    print(f"resident memory: {before} MB, {after} MB after {n + rest} edits")


def answer(socket: object, seq: int, layers: list[str]) -> tuple[float, int]:
    """When the probabilities came, and how many bytes the whole answer has."""
    socket.send(request(seq, layers))  # type: ignore[attr-defined]
    seen, size = 0.0, 0
    while True:
        message = socket.recv(60)  # type: ignore[attr-defined]
        size += len(message)
        seen = seen or time.perf_counter()
        if isinstance(message, str) and "done" in json.loads(message):
            return seen, size


def pages(address: str, layers: list[str]) -> None:
    wanted = ["/overview", "/lab", "/mistakes", "/images?true=0&predicted=0", "/runs"]
    for path in wanted:
        page(address, path)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            page(address, path)
            times.append(1000 * (time.perf_counter() - start))
        print(f"{path:28} {percentiles(times)}")
    units = page(address, "/units").decode()
    if "data-job" in units:
        print("units: the strongest images are not cached; write the report of the run first")
        return
    links = [part.split('"')[0] for part in units.split('class="unit-card" href="')[1:]][:12]
    for path in ["/units", *links]:
        for _ in range(600):  # until its own questions are answered
            if "data-job" not in page(address, path).decode():
                break
            time.sleep(0.2)
    times = []
    for path in ["/units", *links] * 2:
        start = time.perf_counter()
        page(address, path)
        times.append(1000 * (time.perf_counter() - start))
    print(f"{'units, and 12 of their pages':28} {percentiles(times)}")


async def people(address: str, layers: list[str], n: int, server: int) -> None:
    """Each sends an edit, waits for the whole answer, and goes on, ten times."""
    waits: list[float] = []

    async def one(number: int) -> None:
        async with connect(f"ws://{address}/lab/socket", max_size=None) as socket:
            for seq in range(10):
                start = time.perf_counter()
                await socket.send(request(seq, layers, number))
                while True:
                    message = await socket.recv()
                    if isinstance(message, str) and "done" in json.loads(message):
                        break
                waits.append(1000 * (time.perf_counter() - start))

    before = worked(server)
    await asyncio.gather(*map(one, range(n)))
    print(f"{n} people at once, an edit each after the other: {percentiles(waits)}, longest {max(waits):.0f} ms")
    print(
        f"processor time of the server for each of their edits: {1000 * (worked(server) - before) / len(waits):.1f} ms"
    )


def percentiles(times: list[float]) -> str:
    return f"median {statistics.median(times):.1f} ms, p95 {sorted(times)[int(0.95 * (len(times) - 1))]:.1f} ms"


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 10**6


def worked(pid: int) -> float:
    """Processor time of a process, in seconds."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
