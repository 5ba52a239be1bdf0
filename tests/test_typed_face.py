"""The face as a type checker sees it that knows nothing of this project: a user's script with right and wrong calls."""

import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from convscope import data, lenses, scans

ROOT = Path(__file__).parents[1]
SCRIPT = """
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import convscope as cs

data = cs.load_data("mnist", image_size=32)
run: cs.Run = cs.train(cs.build_net("net4", dropout=0.3), data, cs.Recipe(epochs=1), out="runs/first")
figures = cs.evaluate(run, data)
frame = cs.table("runs")
scope = cs.Scope(cs.open_run("runs/first"))
for given in (scope, cs.Scope("runs/first"), cs.Scope(Path("runs/first")), cs.Scope(run.net, torch.zeros(1, 3, 8, 8))):
    given.anatomy()
for image in ("cat.jpg", Path("cat.jpg"), np.zeros((8, 8, 3)), Image.new("L", (8, 8)), torch.zeros(3, 8, 8), data.test):
    values: torch.Tensor = scope.saliency(image, "cat").values
    scope.logits(image), scope.activations(image, ["conv1"]), scope.statistics(image, "conv")
values = scope.guided_backprop(["a.png", Path("b.png")], layer="conv1", unit=3, position=(1, 2)).values
scope.grad_cam("cat.jpg", "conv4", relu=True, max_memory=1 << 20).on_image(32, 32)
scope.layer_cam("cat.jpg"), scope.hires_cam("cat.jpg"), scope.grad_cam_plus_plus("cat.jpg", target=3)
scope.integrated_gradients("cat.jpg", n_steps=20), scope.attribute("smooth_grad", "cat.jpg", n_samples=5, seed=1)
one: torch.Tensor = scope.occlusion("cat.jpg", 5, stride=2).drop
more: list[cs.lenses.OcclusionMap] = scope.occlusion("cat.jpg", [3, 5])
scope.maximize("conv1", [0, 1], steps=64, seed=1, regularizers=[cs.lenses.Jitter(2)])
scope.top_patches(data.test, ["conv*"], top=9, workers=2)["conv1"].patches(data.test, 0)
scope.filter_effects(data.test, "conv", batch_size=64), scope.ablation({"conv1": [0]}, data.test, progress=False)
scope.faithfulness("grad_cam", data.test, layer="conv4"), scope.randomization_check("occlusion", data.test, size=5)
scope.randomization_check(cs.Scope.saliency, data.test, seed=2)
try:
    cs.draw, cs.graph.trace
except cs.ConvscopeError as error:
    print(error, isinstance(error, cs.errors.DataError))

cs.no_such_function(3)  # wrong
cs.load_data("mnist", imge_size=32)  # wrong
cs.lenses.no_such_lens  # wrong
cs.train(data, run.net)  # wrong
cs.Scope(3)  # wrong
cs.Recipe(epoch=3)  # wrong
scope.saliency(image, layr="conv1")  # wrong
scope.saliency(3)  # wrong
scope.guided_backprop(image, unit="three")  # wrong
scope.deconvnet(image, positions=(1, 2))  # wrong
scope.grad_cam(image, layr="conv4")  # wrong
scope.grad_cam(image, relu="yes")  # wrong
scope.hires_cam(image, unit=3)  # wrong
scope.integrated_gradients(image, steps=20)  # wrong
scope.attribute("grad_cam", image, layr="conv4")  # wrong
scope.attribute("smooth_grad", image, n_sample=5)  # wrong
scope.occlusion(image, sise=5)  # wrong
scope.maximize("conv1", stepz=64)  # wrong
scope.top_patches(data.test, ["conv*"], worker=2)  # wrong
scope.statistics(data.test, "conv", batchsize=64)  # wrong
scope.filter_effects(data.test, "conv", screened=3)  # wrong
scope.ablation({"conv1": [0]}, data.test, max_memry=3)  # wrong
scope.faithfulness("grad_cam", data.test, layr="conv4")  # wrong
scope.randomization_check("grad_cam", data.test, layr="conv4")  # wrong
scope.invariance(data.test, ["conv"], rotated=[3])  # wrong
cs.scans.statistics(scope, data.test, "conv", batchsize=64)  # wrong
cs.ConvscopError  # wrong
"""


@pytest.mark.slow
def test_a_users_script(tmp_path: Path) -> None:
    """Every right line passes and every wrong one is reported, without any setting of this project."""
    script, cache = tmp_path / "script.py", ROOT / ".mypy_cache" / "user"
    script.write_text(SCRIPT)
    (tmp_path / "convscope").symlink_to(ROOT / "src" / "convscope")
    checking = ["mypy", "--config-file=", "--follow-imports=silent", f"--cache-dir={cache}", script.name]
    found = subprocess.run([sys.executable, "-m", *checking], cwd=tmp_path, capture_output=True, text=True, check=False)
    reported = {int(line.split(":")[1]) for line in found.stdout.splitlines() if ": error:" in line}
    wrong = {n for n, line in enumerate(SCRIPT.splitlines(), start=1) if line.endswith("# wrong")}
    assert reported == wrong, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("settings", "of"),
    [
        (lenses.NeuronSettings, (lenses.saliency, lenses.gradient_times_input)),
        (lenses.NeuronSettings, (lenses.guided_backprop, lenses.deconvnet)),
        (
            lenses.CamSettings,
            (lenses.grad_cam, lenses.grad_cam_plus_plus, lenses.hires_cam, lenses.layer_cam, lenses.xgrad_cam),
        ),
        (lenses.MaximizeSettings, (lenses.maximize,)),
        (scans.PassSettings, (scans.scan,)),
    ],
)
def test_settings_that_are_handed_on_are_those_of_the_function(settings: Any, of: tuple[Any, ...]) -> None:
    handed_on = get_type_hints(settings)
    for function in of:
        hints = get_type_hints(function)
        own = {
            name: hints[name] for name, one in signature(function).parameters.items() if one.kind == one.KEYWORD_ONLY
        }
        own.pop("normalize", None)  # which the scope knows
        assert handed_on == own


def test_settings_of_lenses_by_name_are_those_of_all_lenses() -> None:
    of_captum = {name for method in lenses.CAPTUM_METHODS for name in lenses.settings_of(method)}
    own = {name for lens in lenses.ATTRIBUTIONS.values() for name in list(signature(lens).parameters)[3:]}
    of_occlusion = {"size", "stride", "occlusion_fill", "logits"}
    assert set(get_type_hints(lenses.SeededSettings)) == of_captum | own | of_occlusion


def test_settings_of_data_are_the_fields_of_its_spec() -> None:
    assert set(get_type_hints(data.DataSettings)) == set(data.DataSpec.model_fields) - {"source"}
