"""`export_run`: a run as one file for other programs, verified on all test images before it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim

from convscope import __version__
from convscope.base.console import progress_bar, silenced
from convscope.base.optional import import_optional
from convscope.data import ImageSet
from convscope.errors import DataError, FailedError, SettingError, UnknownNameError, first_line
from convscope.runs import (
    ENVIRONMENT,
    MODEL,
    Run,
    RunOrFolder,
    check_writable,
    load_weights,
    open_run,
    read_tensors,
    write_whole,
)

_READ = """from PIL import Image, ImageOps
photo = ImageOps.exif_transpose(Image.open("photo.jpg"))  # upright
if photo.mode.startswith("I"):  # 16 bits to 8
    photo = Image.fromarray(np.uint8(np.asarray(photo) / 257 + 0.5))
photo = photo.convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
pixels = np.array(photo.convert("RGB"))[None]
"""

_SAY = """for head, classes in json.loads(about["heads"]).items():
    part, probabilities = probabilities[: len(classes)], probabilities[len(classes) :]
    print(head, classes[part.argmax()], float(part.max()))
"""

_ONNX = f"""import json, numpy as np, onnxruntime
{_READ}session = onnxruntime.InferenceSession(PATH)
about = session.get_modelmeta().custom_metadata_map
probabilities = session.run(["probabilities"], dict(images=pixels))[0][0]
{_SAY}"""

_TORCH = f"""import json, numpy as np, torch
{_READ}files = dict.fromkeys(["about.json"], "")
program = torch.export.load(PATH, extra_files=files).module()
about = json.loads(files["about.json"])
probabilities = program(torch.from_numpy(pixels))[0].detach()
{_SAY}"""

_SAFETENSORS = """import json
from safetensors import safe_open
with safe_open(PATH, framework="pt") as file:
    about = json.loads(file.metadata()["convscope"])
    weights = {name: file.get_tensor(name) for name in file.keys()}
print(about["classes"], about["mean"], about["std"], list(weights)[:3])
"""


_BATCH = 64

Program = Callable[[Tensor], Tensor]
"""From uint8 (N, H, W, 3) to probabilities (N, classes)."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: of the file.
        format: of it.
        images: how many test images it was tried on; None where it was not verified.
        largest_difference: of a probability from the run's own.
        changed: how many images have another most probable class, in any head.
        example: lines of Python that use the file without convscope.
    """

    path: Path
    format: str
    images: int | None
    largest_difference: float | None
    changed: int | None
    example: str

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"path": str(self.path)}


def export_run(
    run: RunOrFolder, out: str | Path | None = None, to: str | None = None, *, verify: bool = True
) -> Export:
    """A trained run as one file: `onnx`, `torch` (a program of torch.export) or `safetensors` (weights and card).

    The first two hold everything from raw pixels to probabilities, see `Deployed`, for any number of images of any size; names
    of classes, digest and versions are in the file. The file is kept only if it answers as the run does.

    Args:
        run: trained, or its folder.
        out: the file; model.onnx, model.pt2 or model-export.safetensors in the run folder by default.
        to: the format; by default what the file's name ends in, else onnx.
        verify: on all test images; False where the data are not at hand.
    Raises:
        SettingError: the file's name and the format do not go together; or the images have 16 bits, or other than 1 or 3
            channels.
        DataError: the test images cannot be loaded.
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
        FailedError: the network cannot be exported, or an image has another class; nothing is written then.
    """
    run = open_run(run)
    form, path = _form_and_path(run, Path(out) if out else None, to)
    if (channels := run.input_shape[0]) not in (1, 3):
        raise SettingError(
            f"{run.path}: an exported file takes pictures, grey or in colour, and this run images of {channels} channels; use "
            "its model.safetensors"
        )
    if run.bits == 16:
        raise SettingError(
            f"{run.path}: an exported file takes images of 8 bits, and this run of 16; use its model.safetensors"
        )
    check_writable(path.parent)
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            import_optional(package, "an ONNX file", "export")
    try:
        test = run.load_data().test if verify else None
    except DataError as error:
        raise DataError(f"{error}; --unverified (verify=False) writes the file without them") from None
    deployed = Deployed(run)
    _, example, make = _FORMATS[form]
    content, program = make(run, deployed)
    images, largest, changed = _verified(run, test, deployed, program) if test else (None, None, None)
    if changed:
        raise FailedError(
            f"{path} was not written: {changed:,} of {images:,} test images would have another class (largest difference of a "
            f"probability {largest:.2g})"
        )
    write_whole(path, content)
    return Export(path, form, images, largest, changed, example.replace("PATH", repr(str(path))))


def _form_and_path(run: Run, out: Path | None, to: str | None) -> tuple[str, Path]:
    if to is not None and to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS, "one of export's")
    names = {form: Path(name) for form, (name, _, _) in _FORMATS.items()}
    implied = next((form for form, name in names.items() if out and out.suffix == name.suffix), None)
    form = to or implied or "onnx"
    if out is not None and implied != form:
        raise SettingError(f"--out {out}: a file for {form} ends in {names[form].suffix}")
    return form, out or run.path / names[form]


def _about(run: Run) -> dict[str, str]:
    """What is written into the file beside the network."""
    heads = {head.target: list(head.classes) for head in run.task.heads}
    return {
        "classes": json.dumps(list(run.task.classes), ensure_ascii=False),
        "heads": json.dumps(heads, ensure_ascii=False),
        "input": "uint8 images (N, height, width, 3) of any size: red, green and blue, upright, on white where transparent",
        "output": "the probability of each of the classes; those of each head sum to 1",
        "run": run.name,
        "weights sha256": hashlib.sha256((run.path / MODEL).read_bytes()).hexdigest(),
        **(
            {"data digest": run.environment["data"]["digest"]} if run.has(ENVIRONMENT) else {}
        ),  # a published run has none
        "convscope": __version__,
        "torch": torch.__version__,
    }


def _exported(run: Run, deployed: Deployed) -> torch.export.ExportedProgram:
    _, height, width = run.input_shape
    example = torch.zeros(2, height + 8, width + 9, 3, dtype=torch.uint8)
    sizes = {0: Dim("n", min=1), 1: Dim("height", min=2), 2: Dim("width", min=2)}
    try:
        with silenced(), torch.no_grad():
            return torch.export.export(deployed, (example,), dynamic_shapes={"images": sizes})
    except Exception as error:  # export fails in as many ways as there are networks
        raise FailedError(f"{run.path}: its network cannot be exported: {first_line(error)}") from error


def _onnx(run: Run, deployed: Deployed) -> tuple[bytes, Program]:
    import onnx
    import onnxruntime

    exported = _exported(run, deployed)
    try:
        with silenced():
            program = torch.onnx.export(
                exported, dynamo=True, input_names=["images"], output_names=["probabilities"], external_data=False
            )
    except Exception as error:
        raise FailedError(f"{run.path}: its network cannot be written as ONNX: {first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, _about(run))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _torch(run: Run, deployed: Deployed) -> tuple[bytes, Program]:
    file = BytesIO()
    with silenced():
        torch.export.save(_exported(run, deployed), file, extra_files={"about.json": json.dumps(_about(run))})
        module = torch.export.load(BytesIO(file.getvalue())).module()
    return file.getvalue(), module


def _safetensors(run: Run, deployed: Deployed) -> tuple[bytes, Program]:
    """The run's own file of weights; it is read into the network once more."""
    load_weights(deployed.net, read_tensors(run.path / MODEL)[0], run.path / MODEL)
    return (run.path / MODEL).read_bytes(), deployed


_FORMATS: Mapping[str, tuple[str, str, Callable[[Run, Deployed], tuple[bytes, Program]]]] = {
    "onnx": ("model.onnx", _ONNX, _onnx),
    "torch": ("model.pt2", _TORCH, _torch),
    "safetensors": (
        "model-export.safetensors",
        _SAFETENSORS,
        _safetensors,
    ),  # model.safetensors are the run's own weights
}
"""Of each: its file in the run folder, an example of its use, and what makes its bytes and a program of them."""

FORMATS = tuple(_FORMATS)


@torch.no_grad()
def _verified(run: Run, test: ImageSet, deployed: Deployed, program: Program) -> tuple[int, float, int]:
    """How many test images there are, the largest difference of a probability, and how many change a class."""
    largest, changed = 0.0, 0
    with progress_bar("verifying", len(test)) as advance:
        for start in range(0, len(test), _BATCH):
            pixels = test.pixels[test.index[start : start + _BATCH]]
            images = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()  # as a file would hold them
            normal = (test.images(range(start, start + len(images))) - deployed.mean) / deployed.std
            expected, exported = run.task.probabilities(deployed.net(normal)), program(images)
            if not expected.isfinite().all():
                raise FailedError("the network answers with NaN or infinity; its weights are broken: train it again")
            largest = max(largest, float((expected - exported).abs().nan_to_num(nan=torch.inf).max()))
            differs = (_answers(run, expected) != _answers(run, exported)).any(1)
            changed += int((differs | ~exported.isfinite().all(1)).sum())
            advance(len(images))
    return len(test), largest, changed


def _answers(run: Run, probabilities: Tensor) -> Tensor:
    """The most probable class of each head, (N, heads)."""
    by_head = probabilities.split([len(head.classes) for head in run.task.heads], 1)
    return torch.stack([each.argmax(1) for each in by_head], 1)


_LUMA = (19595, 38470, 7471)  # 65536ths of red, green and blue in a grey image (ITU-R BT.601), as Pillow's


class Deployed(nn.Module):
    """A run's network as others use it, in evaluation mode.

    It takes pixels as they are read from a file, uint8 (N, height, width, 3) of any size, and does with them what was done with
    the training images: makes them grey where the run is, scales them until they cover the run's size and cuts out the centre
    (see `convscope.data.read_image`; rounded to whole numbers as Pillow does), normalises. It gives the probability of each of
    `run.task.classes`, (N, classes); those of each head sum to 1.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.net, self.task = run.net, run.task
        self.channels, self.height, self.width = run.input_shape
        buffers = {"mean": run.card.mean, "std": run.card.std, "luma": _LUMA}
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: UInt8[Tensor, "N height width 3"]) -> Float[Tensor, "N classes"]:
        """Probabilities of the classes."""
        scaled = self.pixels(images) / 255
        return self.task.probabilities(self.net((scaled - self.mean) / self.std))

    def pixels(self, images: UInt8[Tensor, "N height width 3"]) -> Float[Tensor, "N C H W"]:
        """The images as the network sees them, before normalisation: whole numbers from 0 to 255, Pillow's or one beside."""
        pixels = images.permute(0, 3, 1, 2).float()
        if self.channels == 1:
            pixels = _rounded((pixels * self.luma).sum(1, keepdim=True) / 65536)
        # scaled and cut by one matrix for the columns and one for the rows, as Pillow's bilinear filter does it
        rows, columns = pixels.shape[2:]
        height, width = (torch.full((), n, dtype=torch.float32, device=pixels.device) for n in (rows, columns))
        ratio = self.width / self.height
        across = _weights(columns, width, torch.minimum(width, height * ratio), self.width)
        down = _weights(rows, height, torch.minimum(height, width / ratio), self.height)
        return _rounded(down @ _rounded(pixels @ across.T))


def _weights(n: Any, length: Tensor, middle: Tensor, out: int) -> Float[Tensor, "out n"]:
    """What each of `n` pixels in a row adds to each of `out` pixels, which share out the `middle` of its length."""
    scale = middle / out
    centre = (length - middle) / 2 + (torch.arange(out, device=length.device) + 0.5) * scale
    distance = (torch.arange(n, device=length.device) + 0.5 - centre[:, None]).abs()
    weights = (1 - distance / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _rounded(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor()
