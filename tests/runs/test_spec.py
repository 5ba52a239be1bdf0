from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from convscope.data import Augmentation, DataSpec
from convscope.errors import RunFolderError, SettingError
from convscope.nets import HeadSpec
from convscope.runs import FORMAT, Recipe, RunSpec, dump_spec, load_spec, make_spec, parse_overrides, read_spec

TEXT = """
data: mnist
net: {name: net1, width: 6}
recipe: {epochs: 3, augmentation: {crop: 2}}
"""


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Recipe(epoch=2), "Recipe: epoch: there is no such setting; did you mean epochs?"),
        (lambda: Recipe(rate=-1), "Recipe: rate: -1: Input should be greater than 0"),
        (
            lambda: Recipe(stages=[{"name": "a", "epochs": 1, "rat": 1}]),
            "Recipe: stages.0.rat: .* did you mean stages.0.rate?",
        ),
        (lambda: RunSpec(data="mnist"), "RunSpec: net: is missing"),
        (lambda: Augmentation(flp="x"), "Augmentation: flp: there is no such setting; did you mean flip?"),
        (lambda: DataSpec(source="mnist", limt=3), "DataSpec: limt: there is no such setting; did you mean limit?"),
    ],
)
def test_settings_of_the_wrong_kind_are_one_line(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(SettingError, match=f"^{expected.replace('?', '[?]')}") as found:
        make()
    assert len(str(found.value).splitlines()) == 1


def test_a_spec_reads_back_as_it_was_written() -> None:
    spec = read_spec(TEXT, "here")
    assert (spec.data.source, spec.net.options, spec.recipe.augmentation.crop) == ("mnist", {"width": 6}, 2)
    assert read_spec(dump_spec(spec), "there") == spec


def test_a_written_spec_states_every_value() -> None:
    written = yaml.safe_load(dump_spec(read_spec("{data: mnist, net: net1}", "here")))
    assert written["format"] == FORMAT
    assert set(written["recipe"]) == set(Recipe.model_fields)
    assert written["recipe"]["rate"] == 0.002


def test_overrides_change_what_is_there_and_what_is_not() -> None:
    spec = read_spec(
        TEXT, "here", ["recipe.epochs=9", "net.width=12", "data.limit=100", "recipe.augmentation.flip=random"]
    )
    assert (spec.recipe.epochs, spec.net.options["width"], spec.data.limit) == (9, 12, 100)
    assert (spec.recipe.augmentation.crop, spec.recipe.augmentation.flip) == (2, "random")
    assert read_spec(TEXT, "here", ["net=net4"]).net.options == {}


def test_heads_are_written_short_or_with_a_weight() -> None:
    text = "{data: lines, net: lines-net, task: {width: sigmoid, angle: {kind: softmax, weight: 2}}}"
    spec = read_spec(text, "here", ["task.width.weight=3"])
    assert spec.task == {"width": HeadSpec(kind="sigmoid", weight=3), "angle": HeadSpec(weight=2)}
    assert read_spec(dump_spec(spec), "there") == spec
    assert yaml.safe_load(dump_spec(read_spec(text, "here")))["task"]["width"] == "sigmoid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: [", "here line 1: this is no YAML"),
        ("just words", "here: expected the keys data, net and recipe; found str"),
        ("{net: net1}", "here: data: is missing"),
        ("{data: mnist, net: net1, lr: 3}", "here: lr: there is no such setting"),
        ("{data: mnist, net: net1, recipe: {epocs: 3}}", "here: recipe.epocs: there is no such setting"),
        ("{data: mnist, net: net1, recipe: {epochs: 0}}", "here: recipe.epochs: 0: Input should be greater than or equal to 1"),
        ("{data: mnist, net: net1, recipe: {epochs: many}}", "here: recipe.epochs: 'many': Input should be a valid integer"),
        ("{data: mnist, net: net1, recipe: {optimizer: sdg}}", "here: recipe.optimizer: 'sdg': Input should be 'sgd'"),
        ("{data: mnist, net: net1, recipe: {optimizer: sgd, momentum: 0}}", "here: recipe: nesterov: needs a momentum above 0"),
        ("{data: mnist, net: net1, recipe: {optimizer: [adam]}}", "here: recipe.optimizer: ['adam']: Input should be 'sgd'"),
        ("{data: {source: mnist, split: 70/50}, net: net1, task: {a: b}}", "here: task.a.kind: 'b': Input should be 'softmax'"),
        ("{data: lines, net: net1, task: sofmax}", "here: task: 'sofmax': Input should be 'softmax' or 'sigmoid'"),
        ("{data: lines, net: net1, task: {angle: 3}}", "here: task.angle: expected softmax or sigmoid, or both settings"),
        ("{data: lines, net: net1, task: {angle: {weight: -1}}}", "here: task.angle.weight: -1: Input should be greater"),
        ("{data: lines, net: net1, task: {angle: {wight: 1}}}", "here: task.angle.wight: there is no such setting"),
    ],
)  # fmt: skip
def test_a_wrong_spec_names_file_and_key(text: str, expected: str) -> None:
    with pytest.raises(SettingError, match="^" + expected.replace("[", r"\[")) as caught:
        read_spec(text, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("data: mnist\nnet: net1\ndata: lines", 3, "data"),
        ("data: mnist\nnet: net1\nrecipe:\n  epochs: 3\n  rate: 0.1\n  epochs: 4", 6, "epochs"),
        ("data: mnist\nnet: {name: net1,\n width: 3, width: 4}", 3, "width"),
        ("data: mnist\nnet: net1\nrecipe: {stages: [{name: a, epochs: 1, rate: 1},\n {name: b, name: c}]}", 4, "name"),
        ("data: mnist\nnet: net1\n'data': lines", 3, "data"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(text: str, line: int, key: str) -> None:
    with pytest.raises(SettingError, match=f"^here line {line}: '{key}' is there twice; leave one of them out$"):
        read_spec(text, "here")


def test_a_key_overrides_what_is_merged_into_its_mapping() -> None:
    text = "data: mnist\nnet: net1\nrecipe: {<<: {epochs: 3, rate: 0.5}, epochs: 4}"
    assert (read_spec(text, "here").recipe.epochs, read_spec(text, "here").recipe.rate) == (4, 0.5)
    with pytest.raises(SettingError, match=r"^--set recipe=\{epochs: 1, epochs: 2\}: 'epochs' is there twice"):
        parse_overrides(["recipe={epochs: 1, epochs: 2}"])


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="no libyaml")
def test_yaml_is_read_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is eight times as fast."""
    monkeypatch.setattr(yaml.scanner.Scanner, "check_token", None)
    assert read_spec(TEXT, "here").recipe.epochs == 3


@pytest.mark.parametrize(("version", "expected"), [(FORMAT + 1, "newer convscope"), (0, "unknown"), ("two", "unknown")])
def test_another_format_is_refused(version: object, expected: str) -> None:
    with pytest.raises(RunFolderError, match=expected):
        read_spec(f"{{format: {version}, data: mnist, net: net1}}", "here")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no\.yaml cannot be read: No such file"):
        load_spec(tmp_path / "no.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SettingError, match=r"picture\.yaml cannot be read: it is no text"):
        load_spec(tmp_path / "picture.yaml")


def test_pairs_are_yaml() -> None:
    assert parse_overrides(["width=64", "split=60/40", "on=true", "name=a=b"]) == {
        "width": 64, "split": "60/40", "on": True, "name": "a=b",
    }  # fmt: skip
    with pytest.raises(SettingError, match="--set width: expected key=value"):
        parse_overrides(["width"])


def test_a_recipe_cannot_be_changed_behind_a_runs_back() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec(data={"source": "mnist"}, net={"name": "net1"}).recipe.epochs = 4  # type: ignore[misc]


STAGED = """
data: mnist
net: net1
recipe:
  schedule: cosine
  stages:
    - {name: head, train: fc2, epochs: 3, rate: 1e-2}
    - {name: all of it, epochs: 2, rate: 0.001, schedule: constant, augmentation: {flip: random}}
"""


def test_stages_say_what_they_change_of_the_recipe() -> None:
    recipe = read_spec(STAGED, "here").recipe
    assert (recipe.epochs, recipe.rate) == (5, 0.01)
    head, whole = recipe.parts
    assert (head.epochs, head.rate, head.schedule, head.augmentation.flip) == (3, 0.01, "cosine", "none")
    assert (whole.epochs, whole.rate, whole.schedule, whole.augmentation.flip) == (2, 0.001, "constant", "random")
    assert [stage.train for stage in recipe.stages or ()] == [("fc2",), ("all",)]


def test_a_spec_with_stages_is_read_as_it_was_written() -> None:
    spec = read_spec(STAGED, "here")
    assert read_spec(dump_spec(spec), "there") == spec
    assert Recipe().parts == (Recipe(),)


def test_a_place_in_a_list_can_be_overridden() -> None:
    recipe = read_spec(STAGED, "here", ["recipe.stages.1.epochs=7"]).recipe
    assert recipe.epochs == 10


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recipe.stages=[]", r"here: recipe.stages: \[\]: "),
        ("recipe.stages=[{name: a, epochs: 1}]", r"here: recipe.stages.0.rate: is missing"),
        ("recipe.stages=[{name: a, rate: 1}]", r"here: recipe.stages.0.epochs: is missing"),
        ("recipe.stages.0.train=[]", r"here: recipe.stages.0.train: \[\]: "),
        ("recipe.stages.0.batch=3", r"here: recipe.stages.0.batch: there is no such setting"),
        ("recipe.stages.1.name=head", r"stages: two have the name 'head'; give each its own"),
        ("recipe.stages.2.name=head", r"recipe.stages.2.name: '2' is no place in this list; its places are 0 to 1"),
        ("recipe.epochs=9", r"epochs: 9, but those of the stages add up to 5; leave it out"),
        ("recipe.rate=0.5", r"rate: 0.5, but each stage has a rate of its own; leave it out"),
        ("recipe.stages=3", r"here: recipe.stages: 3: "),
    ],
)
def test_stages_that_cannot_be_are_named(override: str, expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        read_spec(STAGED, "here", [override])


@pytest.mark.parametrize("key", ["recipe.train.0.x", "recipe.train.0.x.y"])
def test_a_word_in_a_list_has_no_settings_of_its_own(key: str) -> None:
    with pytest.raises(SettingError, match=rf"^{key}: '0' is a value, it has no settings of its own$"):
        read_spec("{data: mnist, net: net1, recipe: {train: [head]}}", "here", [f"{key}=1"])


def test_settings_of_a_part_that_is_null_are_set() -> None:
    written = dump_spec(read_spec(TEXT, "here"))
    spec = read_spec(written, "here", ["recipe.resize.start_px=16", "data.labels.table=names.csv"])
    assert (spec.recipe.resize.start_px, spec.data.labels.table) == (16, "names.csv")


def test_class_weights_are_a_word_or_numbers_by_class() -> None:
    of_digits = read_spec("{data: mnist, net: net1, recipe: {class_weights: {7: 2, 3: 0.5}}}", "here")
    assert of_digits.recipe.class_weights == {"3": 0.5, "7": 2.0}
    assert read_spec(dump_spec(of_digits), "there") == of_digits
    assert read_spec(TEXT, "here", ["recipe.class_weights={7: 2, 3: 0.5}"]).recipe == of_digits.recipe.model_copy(
        update={"epochs": 3, "augmentation": Augmentation(crop=2)}
    )
    assert read_spec(TEXT, "here", ["recipe.class_weights=balanced"]).recipe.class_weights == "balanced"
    assert (Recipe().class_weights, Recipe().sampling) == (None, "shuffle")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("balancd", "recipe.class_weights: 'balancd': expected balanced, or weights by class"),
        ([1, 2], r"recipe.class_weights: \[1, 2\]: expected balanced, or weights by class"),
        (True, "recipe.class_weights: True: expected balanced, or weights by class"),
        ({}, "recipe.class_weights: {}: .* at least 1 item"),
        ({"cat": 0}, "recipe.class_weights.cat: 0: .* greater than or equal to 0.000001"),
        ({"cat": float("nan")}, "recipe.class_weights.cat: nan: "),
        ({"cat": "heavy"}, "recipe.class_weights.cat: 'heavy': .* valid number"),
    ],
)
def test_class_weights_that_are_none_are_named(given: object, expected: str) -> None:
    with pytest.raises(SettingError, match=f"^here: {expected}[^\n]*$"):
        make_spec({"data": "mnist", "net": "net1", "recipe": {"class_weights": given}}, "here")


def test_the_kinds_of_sampling() -> None:
    assert Recipe(sampling="balanced").sampling == "balanced"
    with pytest.raises(SettingError, match=r"Recipe: sampling: 'even': .*'shuffle' or 'balanced'"):
        Recipe(sampling="even")
