"""Lines of Python that use an exported file without convscope."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Format = Literal["onnx", "torch", "safetensors"]

_ONNX = """import json, numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession({path!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image = np.asarray(Image.open("photo.jpg").convert("RGB"))[None]
[probabilities] = session.run(None, {{"images": image}})
print(classes[probabilities[0].argmax()], probabilities[0].max())
"""

_TORCH = """import json, numpy as np, torch
from PIL import Image
about = {{"about.json": ""}}
program = torch.export.load({path!r}, extra_files=about).module()
classes = json.loads(json.loads(about["about.json"])["classes"])
image = torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB")))[None]
probabilities = program(image)[0]
print(classes[probabilities.argmax()], float(probabilities.max()))
"""

_SAFETENSORS = """import json
from safetensors import safe_open
with safe_open({path!r}, framework="pt") as file:
    about = json.loads(file.metadata()["convscope"])
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
print(about["classes"], about["mean"], about["std"], list(weights)[:3])
"""


def example_of(form: str, path: Path) -> str:
    """The lines for a file of that format."""
    return {"onnx": _ONNX, "torch": _TORCH, "safetensors": _SAFETENSORS}[form].format(path=str(path))
