"""`write_card`: a folder to publish a run with: a model card, the weights, what a program must know to load them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from convscope import __version__
from convscope.base.console import printable, printable_json
from convscope.data import hub_name
from convscope.draw import panel, picture, png
from convscope.errors import DataError, RunFolderError, SettingError, shortened
from convscope.nets import code_in
from convscope.report import ReportedRun, confident_errors, fill, findings
from convscope.runs import (
    ENVIRONMENT,
    GIVEN,
    MODEL,
    SPEC,
    Run,
    RunOrFolder,
    check_writable,
    dump_spec,
    open_run,
    parse_mapping,
    shareable,
    write_whole,
)

CARD, CONFIG, FAILURES = "README.md", "config.json", "failures.png"
_MOST_FAILURES = 12
_MOST_LETTERS = 18  # of a class below a picture


def write_card(run: RunOrFolder, out: str | Path | None = None, repo: str | None = None) -> Path:
    """The folder that was written: README.md with the Hub's metadata block, config.json, weights, spec.yaml, failures.png.

    In a README.md that is there already two things are the publisher's own and stay: the section "Intended use", and what
    the metadata block has beside our keys and tags, such as `license`.

    Args:
        run: trained and evaluated; or its folder.
        out: the folder, `card` in the run folder by default; files of these names in it are replaced.
        repo: `owner/name` on the Hub, where the page is to say how to load it from there.
    Raises:
        RunFolderError: the run is not evaluated, or its data has changed.
        SettingError: `repo` is no such name; `out` has files of these names and no card, as a run's folder has;
            or a README.md is there that is no such card, or whose metadata block is no YAML.
        ReadOnlyError: nothing may be written there.
    """
    run = open_run(run)
    if repo is not None:
        check_repo(repo)
    folder = Path(out) if out else run.path / "card"
    run.metrics  # noqa: B018 (says at once what is missing)
    if (folder / ENVIRONMENT).exists():  # a card has none; its weights and spec would take the place of the run's
        raise SettingError(f"{folder} is a run's folder: choose another folder with --out")
    for name in () if (folder / CARD).exists() else (MODEL, SPEC, CONFIG, FAILURES):
        if (folder / name).exists():
            raise SettingError(f"{folder / name} is there, and is of no model card: choose another folder with --out")
    check_writable(folder)
    metadata, intended_use = _publishers_own(folder / CARD)
    try:
        subject = ReportedRun(run, run.load_data())
    except DataError as error:
        raise RunFolderError(f"{run.path}: a card shows images of its data, which cannot be loaded: {error}") from None
    failures = _failures(subject)
    text = fill(
        "card.md",
        "convscope.share",
        front=_front_matter(subject, repo, metadata),
        intended_use=intended_use,
        repo=repo,
        cell=_cell,
        code=_code,
        run=run,
        metrics=subject.metrics,
        environment=run.environment,
        parameters=subject.anatomy.parameters,
        findings=findings(subject),
        failures=FAILURES if failures else None,
        timms=is_timms(run),
        given=run.spec.net.name == GIVEN,
        makers_code=code_in(shareable(run.spec).net),
        version=__version__,
    )
    write_whole(folder / CARD, text)  # first, for without it the other files are taken for somebody else's
    if failures:
        write_whole(folder / FAILURES, failures)
    else:
        (folder / FAILURES).unlink(missing_ok=True)
    config = _timms(run) if is_timms(run) else _ours(run)
    write_whole(folder / MODEL, (run.path / MODEL).read_bytes())
    write_whole(folder / SPEC, dump_spec(shareable(run.spec)))
    write_whole(folder / CONFIG, printable_json(json.dumps(config, indent=1, ensure_ascii=False)) + "\n")
    return folder


def _publishers_own(path: Path) -> tuple[dict[str, Any], str | None]:
    """The metadata of a README.md, and its section "Intended use"; nothing and None where there is none."""
    if not path.is_file():
        return {}, None
    text = path.read_text("utf-8", "replace")
    block = re.match(r"---\n(.*?\n)---[ \t]*\n", text, re.DOTALL)
    section = re.search(r"^## Intended use\n+(.*?)\n*(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    try:
        metadata = parse_mapping(block[1], str(path)) if block else {}
    except SettingError as error:
        raise SettingError(f"{error}; mend its metadata block, or remove the file") from None
    tags = metadata.get("tags")
    if not isinstance(tags, list) or "convscope" not in tags:
        raise SettingError(f"{path} is there, and is no model card of convscope's: choose another folder with --out")
    if wrong := [tag for tag in tags if not isinstance(tag, str | int | float)]:
        raise SettingError(f"{path}: tags: {shortened(wrong[0])}: expected a word; mend its metadata block")
    return metadata, section[1] if section else None


def check_repo(repo: str) -> None:
    """Refuses a name that no repository of the Hub can have.

    Raises:
        SettingError: it is one.
    """
    part = r"\b[\w.-]{1,96}\b"
    if not re.fullmatch(f"{part}/{part}", repo, re.ASCII) or re.search(r"--|\.\.|\.git$", repo):
        raise SettingError(f"{repo!r} is no name for a repository; expected owner/name of letters, digits, -, _ and .")


def _front_matter(subject: ReportedRun, repo: str | None, metadata: dict[str, Any]) -> str:
    """The metadata block that the Hugging Face Hub reads, with the result as its `model-index`; keys that are not ours stay."""
    run, accuracy = subject.run, subject.metrics["accuracy"]
    hub, data = hub_name(run.spec.data.source), printable(run.environment["data"]["name"])
    library = "timm" if is_timms(run) else "convscope"
    limits = [f"{100 * limit:.2f}" for limit in (accuracy["low"], accuracy["high"]) if limit is not None]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": hub or data, "split": "test"},
        "metrics": [{
            "type": "accuracy",
            "value": round(accuracy["value"], 6),
            "name": f"test accuracy, 95 % interval {' to '.join(limits)} %" if limits else "test accuracy",
        }],
    }  # fmt: skip
    tags = ["image-classification", library, "convscope", "pytorch"]
    sources = {"datasets": [hub] if hub else None, "base_model": base_model(run)}
    front = {
        **metadata,
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(map(str, [*tags, *metadata.get("tags", ())]))),
        "metrics": ["accuracy"],
        **{key: value for key, value in sources.items() if value},
        "model-index": [{"name": repo.split("/")[1] if repo else printable(run.name), "results": [result]}],
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


_MARKUP = re.compile(r"[\\|`*_\[\]<>#~&$]|^[-+=]")


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table: it cannot end the cell, nor be markup, a list or a formula."""
    escaped = _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)


def _code(text: str) -> str:
    """Text between backticks, more of them than it holds; none where it is empty."""
    plain = printable(" ".join(text.split()))
    if not plain:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    return f"{fence}{plain}{fence}" if "`" not in plain else f"{fence} {plain} {fence}"


def _failures(subject: ReportedRun) -> bytes | None:
    """The most confident errors, as a picture; None where there is none."""
    errors = confident_errors(subject)[:_MOST_FAILURES]
    if not errors:
        return None
    parts = [
        (f"{_short(error['true'])}, not {_short(error['predicted'])}", picture(subject.data.test[error["row"]][0]))
        for error in errors
    ]
    note = "below each its class, and what the network answers"
    return png(panel(parts, "the most confident errors on test images", side=112, columns=4, note=note))


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def is_timms(run: Run) -> bool:
    """Whether `timm.create_model("local-dir:FOLDER", pretrained=True)` gives the network: one of timm's, with its own output
    layer and one softmax head."""
    spec, heads = run.spec.net, run.task.heads
    return spec.name.startswith("timm:") and spec.head is None and [head.kind for head in heads] == ["softmax"]


def base_model(run: Run) -> str | None:
    """The name on the Hub of the trained weights that a network of timm's began from; None where it began from random ones."""
    config: dict[str, Any] = getattr(run.net, "pretrained_cfg", None) or {}
    return config.get("hf_hub_id") if run.spec.net.options.get("pretrained") and is_timms(run) else None


def _ours(run: Run) -> dict[str, Any]:
    names = run.task.classes
    return {
        "library": f"convscope {__version__}",
        "architecture": run.spec.net.name,
        "architecture_options": shareable(run.spec).net.options,
        "num_classes": len(names),
        "id2label": {str(n): name for n, name in enumerate(names)},
        "label2id": {name: n for n, name in enumerate(names)},
        "input_shape": list(run.input_shape),
        "mean": list(run.card.mean),
        "std": list(run.card.std),
    }


def _timms(run: Run) -> dict[str, Any]:
    """As timm's `save_for_hf` writes it; images are scaled until they cover the input, and the centre is cut out."""
    net: Any = run.net
    options = shareable(run.spec).net.options
    data = {
        "input_size": list(run.input_shape),
        "fixed_input_size": bool(net.pretrained_cfg.get("fixed_input_size")),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(run.card.mean),
        "std": list(run.card.std),
    }
    layers = {key: net.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    return {
        "architecture": run.spec.net.name.removeprefix("timm:").partition(".")[0],
        "num_classes": len(run.classes),
        "num_features": net.num_features,
        "label_names": list(run.classes),
        "model_args": {key: value for key, value in options.items() if key not in _FROM_THE_DATA},
        "pretrained_cfg": data | layers | {"num_classes": len(run.classes), "pool_size": None, "custom_load": False},
        "library": f"convscope {__version__}",
    }


_FROM_THE_DATA = ("classes", "channels", "image_size", "num_classes", "in_chans", "pretrained")
"""Options that config.json has elsewhere, or that say nothing of the network."""
