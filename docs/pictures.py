"""Takes the README's pictures from a run's report, in Chromium.

python docs/pictures.py runs/cifar10
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).with_name("pictures")
PARTS = {
    "report-confusion": "#confusion",
    "report-mistakes": "#mistakes",
    "report-network": "#network",
    "report-maps": "#maps",
}
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]


def main(run: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1080, "height": 860})
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("[data-chart] svg")
        _keep("report-top", page.screenshot())
        for name, part in PARTS.items():
            box = page.locator(part).bounding_box()
            box["height"] = min(box["height"], 700)
            _keep(name, page.screenshot(full_page=True, clip=box))
        browser.close()


def _keep(name: str, png: bytes) -> None:
    """As a PNG of 256 colours: a third of the size, and no difference to be seen."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    image.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
