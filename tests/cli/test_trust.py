"""A run folder is made to be shared: opening one runs no code that its maker put there, unless its maker is trusted."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from convscope.analyses import open_subject
from convscope.errors import UntrustedCodeError
from convscope.nets import NetSpec, code_in
from convscope.runs import MODEL, SPEC, open_run
from convscope.scope import Scope
from tests.cli.conftest import Command

# Checks of annotations would ask a run for its network, and change the error that it raises.
pytestmark = pytest.mark.usefixtures("annotations_unchecked")

# Each with the files to remove first, so that there is something left to do.
VERBS = {
    ("report", "RUN"): (),
    ("look", "RUN", "filters"): (),
    ("evaluate", "RUN"): ("metrics.json", "predictions.safetensors"),
    ("train", "--resume", "RUN"): ("model.safetensors",),
}
HOSTILE: dict[str, dict[str, Any]] = {
    "a callable of the system": {"name": "os:system", "command": "touch 'MARK'"},
    "a module beside": {"name": "beside:build"},
    "what the zoo imports": {"name": "convscope.nets.zoo:import_optional", "name_": "x"},
    "another callable of ours": {"name": "convscope.runs.whole:write_whole", "path": "MARK", "content": "x"},
    "a file of weights for timm": {"name": "timm:resnet18", "checkpoint_path": "MARK"},
    "a short word that is a file": {"name": "timm:resnet18", "checkpoint_path": "weights"},
    "an address of weights": {"name": "timm:resnet18", "pretrained_cfg": {"url": "http://localhost/x.pth"}},
    "a class for timm": {"name": "timm:resnet18", "act_layer": "torch.nn:ReLU"},
}


@pytest.fixture
def run_folder(command: Command, study_file: Path, tmp_path: Path) -> Path:
    out = tmp_path / "runs" / "shared"
    assert command("train", study_file, "--out", out).status == 0
    assert command("evaluate", out).status == 0
    return out


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the user's, which leaves a mark when it is imported; a name that it makes is gone afterwards."""
    mark = tmp_path / "MARK"
    (tmp_path / "beside.py").write_text(
        f"from pathlib import Path\nfrom convscope.nets import build_net\nPath({str(mark)!r}).touch()\n"
        "def build(**options):\n    return build_net('c8b M c8b f16b', **options)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("beside", None)


def rename(run: Path, net: dict[str, Any], mark: Path) -> None:
    spec = yaml.safe_load((run / SPEC).read_text())
    spec["net"] = {k: v.replace("MARK", str(mark)) if isinstance(v, str) else v for k, v in net.items()}
    (run / SPEC).write_text(yaml.safe_dump(spec))


@pytest.mark.parametrize("net", HOSTILE.values(), ids=HOSTILE)
def test_no_verb_runs_or_reads_what_a_folder_names(
    net: dict[str, Any], run_folder: Path, beside: Path, command: Command
) -> None:
    rename(run_folder, net, beside)
    for words, removed in VERBS.items():
        for name in removed:
            (run_folder / name).unlink()
        answer = command(*(str(run_folder) if word == "RUN" else word for word in words))
        assert answer.status == 2
        assert f"{run_folder}: its network would run code or read files that its spec names: " in answer.complaint
        assert "--trust-code" in answer.complaint
    assert not beside.exists()
    assert not (run_folder / "report.html").exists()


def test_in_python_too(run_folder: Path, beside: Path) -> None:
    rename(run_folder, HOSTILE["a module beside"], beside)
    for open_it in (
        lambda: Scope(run_folder),
        lambda: open_run(run_folder).net,
        lambda: open_subject(run_folder),
    ):
        with pytest.raises(UntrustedCodeError, match=r"beside:build.*trust=True"):
            open_it()
    assert not beside.exists()
    assert open_run(run_folder, trust=True).net is not None
    assert beside.exists()


def test_trust_says_what_it_runs(run_folder: Path, beside: Path, command: Command) -> None:
    rename(run_folder, HOSTILE["a module beside"], beside)
    answer = command("evaluate", run_folder, "--trust-code")
    assert (answer.status, answer.err) == (0, f"note: {run_folder} runs beside:build\n")
    assert command("look", run_folder, "filters", "--trust-code").status == 0


def test_commands_that_messages_advise_run_as_they_stand(study_file: Path, beside: Path, command: Command) -> None:
    """Of a folder with a space and a quote, whose network is a callable."""
    out = study_file.parent / "it's mine"
    trained = command("train", study_file, "--set", "net=beside:build", "--out", out).out
    again = command("train", out).complaint
    assert command(*shlex.split(trained.rpartition("next: convscope ")[2])).status == 0
    (out / MODEL).unlink()
    assert command(*shlex.split(again.rpartition("convscope ")[2])).status == 0


def test_the_folders_above_the_data_stay_private(run_folder: Path, study_file: Path, command: Command) -> None:
    assert command("report", run_folder).status == 0
    for name in ("environment.json", "report.html"):
        text = (run_folder / name).read_text("utf-8")
        assert "spots.npz" in text
        assert str(study_file.parent / "spots.npz") not in text


def test_a_spec_that_the_user_names_runs_its_own_code(study_file: Path, beside: Path, command: Command) -> None:
    """As the user wrote it; and the run that comes of it is opened without a question in the same command."""
    out = study_file.parent / "own"
    assert command("study", study_file, "--set", "net=beside:build", "--out", out).status == 0
    assert beside.exists()
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    "spec",
    [
        NetSpec(name="net4"),
        NetSpec(name="c8 M f16"),
        NetSpec(name="convscope.nets.zoo:efficientnet_lite0", pretrained=True),
        NetSpec(name="lite0", pretrained=True),
        NetSpec(name="timm:resnet18", drop_rate=0.1, act_layer="silu", pretrained=True, stem_type="deep"),
        NetSpec(name="torchvision:resnet18", width_per_group=64, replace_stride_with_dilation=[False, False, True]),
    ],
)
def test_what_needs_no_trust(spec: NetSpec) -> None:
    assert code_in(spec) is None
