"""Records the explorer for the README: a stroke, a slider, a unit that is switched off; docs/pictures/explorer.gif.

    convscope serve RUN --port 8765 &
    python docs/record.py 127.0.0.1:8765 [--image 7]

Needs Playwright with a Chromium on PATH; a page as `docs/pictures/explorer-lab.png` comes with it.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).parent / "pictures"
SIZE = {"width": 1240, "height": 780}
GIF_WIDTH, COLOURS, FRAME_MS = 820, 96, 300


class Recorder:
    def __init__(self, page: Any) -> None:
        self.page, self.frames = page, list[Image.Image]()

    def frame(self, n: int = 1) -> None:
        """The page as it is now, for so many quarters of a second."""
        shown = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        height = round(shown.height * GIF_WIDTH / shown.width)
        self.frames += [shown.resize((GIF_WIDTH, height), Image.Resampling.LANCZOS)] * n

    def settled(self) -> None:
        self.page.wait_for_timeout(60)
        for _ in range(100):
            if self.page.evaluate("document.body.dataset.answered === document.body.dataset.asked"):
                return
            self.page.wait_for_timeout(50)

    def stroke(self, points: list[tuple[float, float]]) -> None:
        box = self.page.locator("#picture").bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=3)
            self.settled()
            self.frame()
        self.page.mouse.up()

    def slide(self, name: str, values: list[float]) -> None:
        for value in values:
            self.page.locator(f"label:has-text('{name}') input").fill(str(value))
            self.settled()
            self.frame()

    def save(self, path: Path) -> None:
        palette = self.frames[len(self.frames) // 2].quantize(COLOURS)
        first, *rest = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("address")
    arguments.add_argument("--image", type=int, default=7)
    given = arguments.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        recorder = Recorder(page)
        page.goto(f"http://{given.address}/lab?image={given.image}")
        page.locator("#matter a").first.wait_for(timeout=120_000)
        recorder.settled()
        recorder.frame(4)
        recorder.stroke([(0.3, 0.25 + k / 12) for k in range(7)])
        recorder.stroke([(0.35 + k / 16, 0.45) for k in range(7)])
        recorder.frame(3)
        page.screenshot(path=PICTURES / "explorer-lab.png")
        recorder.slide("rotate", [5, 10, 15, 20, 25])
        recorder.frame(2)
        page.keyboard.press("Tab")
        page.click("#reset")
        recorder.settled()
        recorder.frame(2)
        page.click("input[value=cone] >> xpath=..")
        recorder.stroke([(0.5, 0.5), (0.6, 0.55), (0.7, 0.6)])
        recorder.frame(2)
        page.click("#smallest")
        for _ in range(200):
            if page.evaluate("/pixels/.test(document.querySelector('#question').textContent)"):
                break
            page.wait_for_timeout(100)
        recorder.frame(6)
        page.locator("#matter a").first.click()
        page.wait_for_timeout(1500)
        recorder.frame(8)
        page.click("#switch")
        page.wait_for_timeout(1200)
        recorder.frame(3)
        page.click("nav >> text=Image lab")
        page.locator("#image").fill(str(given.image))
        page.keyboard.press("Enter")
        page.wait_for_timeout(800)
        recorder.settled()
        recorder.frame(10)
        browser.close()
    recorder.save(PICTURES / "explorer.gif")


if __name__ == "__main__":
    main()
