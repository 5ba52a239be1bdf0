"""The pages: what they say of a run, of what is wrong with it, and of a state in their address."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from html import unescape
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from convscope.analyses import names
from convscope.app import ExploredRuns, pages, unit_pages
from convscope.app.explored import times_of
from convscope.app.explorer import Explorer
from convscope.app.pages import compare
from convscope.app.state import State
from convscope.data import load_data
from convscope.errors import RequestError, RunFolderError
from convscope.lenses import ATTRIBUTIONS
from convscope.nets import build_net
from convscope.runs import Recipe, Run, open_run, read_review
from convscope.scans import evaluate
from convscope.training import Silent, train
from tests.app.serving import get, served
from tests.conftest import spots_of, write_spots
from tests.contrast import contrast, rgb
from tests.planted import answer_with, chosen_logits

PAGES = ("runs", "overview", "lab", "units", "unit/conv1/0", "map", "mistakes", "images", "compare", "api")


@pytest.fixture(scope="module")
def address(reported: Run) -> Iterator[str]:
    with served(reported.path) as found:
        yield found


def page(address: str, path: str, wanted: int = 200) -> str:
    """The page, after what it waits for is computed."""
    for _ in range(200):
        status, body, _ = get(address, path, Accept="text/html")
        assert status == wanted, words(body.decode())
        text = body.decode()
        if "data-job=" not in text:
            return text
        time.sleep(0.1)
    raise AssertionError("it waits for ever")


def words(text: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", text, flags=re.S))))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_there(address: str, name: str) -> None:
    assert "<h1" in page(address, f"/{name}")


def test_the_overview_has_the_runs_own_figures(address: str, reported: Run) -> None:
    accuracy = reported.metrics["accuracy"]
    text = words(page(address, "/overview"))
    assert f"{100 * accuracy['value']:.2f} %" in text
    assert f"95 %: {100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f}" in text


def test_a_page_is_that_of_its_path_whatever_the_query_says(address: str) -> None:
    expected = words(page(address, "/overview"))
    for name in ("zzz", "units"):
        assert words(page(address, f"/overview?name={name}")) == expected
    for setting in ("name", "ending"):
        status, body, _ = get(address, f"/api/analyses/grad_cam?image=2&{setting}=.png")
        assert (status, f"--{setting}: grad_cam has no such setting" in json.loads(body)["error"]) == (400, True)


def test_with_units_off_the_overview_says_what_they_do(address: str, reported: Run) -> None:
    from convscope.analyses import ablation_plan
    from convscope.scope import Scope

    scope, test = Scope(reported), reported.load_data().test
    expected = ablation_plan(scope, ["conv1"]).ablation(test, {"conv1": [0, 1, 2, 3, 4, 5, 6]})
    text = words(page(address, "/overview?off=conv1:0,1,2,3,4,5,6"))
    assert "Switched off: conv1:0,1,2,3,4,5,6" in text
    assert f"{100 * expected.accuracy_after().value:.2f} %" in text
    [matrices] = re.findall(
        r'id="matrices">(.*?)</script>', page(address, "/overview?off=conv1:0,1,2,3,4,5,6"), flags=re.S
    )
    assert json.loads(matrices)[0]["matrix"] == expected.confusion_after.tolist()
    [true, after] = (expected.confusion_after - expected.confusion_before).nonzero()[0].tolist()
    cell = page(address, f"/images?true={true}&predicted={after}&off=conv1:0,1,2,3,4,5,6")
    there = expected.index[(expected.target == true) & (expected.after == after)].tolist()
    assert sorted(map(int, re.findall(r"/images/(\d+)\.png", cell))) == there
    mistakes = page(address, "/mistakes?off=conv1:0,1,2,3,4,5,6")
    [queue] = re.findall(r'id="queue-data">(.*?)</script>', mistakes, flags=re.S)
    wrong = {
        int(row)
        for row, after, true in zip(expected.index, expected.after, expected.target, strict=True)
        if after != true
    }
    assert {one["row"] for one in json.loads(queue)} == wrong


def test_the_queue_begins_with_the_largest_loss(reported: Run, tmp_path: Path) -> None:
    run = open_run(shutil.copytree(reported.path, tmp_path / "wrong"))
    data = run.load_data()
    logits = chosen_logits(data, (1, 4, 9))
    logits[4] *= 2
    answer_with(run, data, logits)
    with served(run.path) as address:
        [queue] = re.findall(r'id="queue-data">(.*?)</script>', page(address, "/mistakes"), flags=re.S)
    rows = json.loads(queue)
    true = data.test.targets_of()
    losses = {row: float(-logits[row].log_softmax(0)[true[row]]) for row in (1, 4, 9)}
    assert {one["row"] for one in rows} == {1, 4, 9}
    assert [one["loss"] for one in rows] == pytest.approx(sorted(losses.values(), reverse=True), abs=1e-3)
    assert rows[0]["true"] == run.classes[true[rows[0]["row"]]]


def test_of_several_heads_the_pages_say_which_they_show(tmp_path: Path) -> None:
    from PIL import Image

    images, labels = spots_of(90)
    rows = ["file,place,bright"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{label},{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = load_data(str(tmp_path), labels={"table": "labels.csv", "label": ["place", "bright"]})
    net = build_net("c4 f8", classes=5, channels=3, image_size=8)
    task = {"place": "softmax", "bright": "softmax"}
    run = train(net, data, Recipe(epochs=1, batch=24), tmp_path / "run", device="cpu", watcher=Silent(), task=task)
    evaluate(run, data)
    with served(run.path) as address:
        for name in ("mistakes", "images", "map", "units"):
            assert "the classes and the accuracy of the first, place" in words(page(address, f"/{name}"))
        assert '"heads":[[0,3],[3,5]]' in page(address, "/lab")


def test_a_network_without_maps_is_offered_no_method_that_needs_them(tmp_path: Path) -> None:
    data = load_data(write_spots(tmp_path / "spots.npz", 120))
    net = build_net("f8", classes=len(data.classes), channels=3, image_size=data.input_shape[1])
    run = train(net, data, Recipe(epochs=1, batch=24), tmp_path / "dense", device="cpu", watcher=Silent())
    evaluate(run, data)
    logits = chosen_logits(data, (1,))
    answer_with(run, data, logits)
    with served(run.path) as address:
        [methods] = re.findall(r'<select id="lens".*?</select>', page(address, "/mistakes"), flags=re.S)
        offered = re.findall(r'value="(\w+)"', methods)
        assert offered[0] == "saliency"
        for name in offered:
            assert get(address, f"/attribution/1.png?lens={name}")[0] == 200
        assert set(ATTRIBUTIONS) - set(offered) == {name for name in ATTRIBUTIONS if "cam" in name}
        [start] = re.findall(r'id="lab-data">(.*?)</script>', page(address, "/lab"), flags=re.S)
        assert json.loads(start)["start"]["lens"] == json.loads(start)["lenses"][0] == "saliency"


def test_a_cell_of_the_confusion_matrix_has_its_images(address: str, reported: Run) -> None:
    predicted, true = reported.predictions["logits"].argmax(1), reported.predictions["target.class"]
    for k in range(3):
        rows = ((true == 1) & (predicted == k)).nonzero()[:, 0].tolist()
        text = page(address, f"/images?true=1&predicted={k}")
        assert sorted(map(int, re.findall(r"/images/(\d+)\.png", text))) == rows


def test_a_sheet_of_some_units_says_of_how_many(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Here are the first" not in page(address, "/units")
    monkeypatch.setattr(unit_pages, "_MOST_UNITS", 3)
    text = page(address, "/units")
    assert "Here are the first 3 of 8." in text
    assert text.count('class="unit-card"') == 3


def test_a_units_page_has_its_strongest_patches(address: str, reported: Run) -> None:
    from convscope.scope import Scope

    found = Scope(reported).top_patches(reported.load_data().test, ["conv1"], top=20, score="max")["conv1"]
    unit = int(found.fired.nonzero()[0, 0])
    text = page(address, f"/unit/conv1/{unit}")
    boxes = re.findall(r"/images/(\d+)\.png\?run=0&amp;box=([\d,]+)&amp;side=80", text)
    n = int(found.count[unit])
    expected = [(row, ",".join(map(str, box))) for row, box in zip(found.index[unit, :n].tolist(), found.box[unit, :n].tolist(),
                                                                     strict=True)]  # fmt: skip
    assert [(int(row), box) for row, box in boxes] == expected


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/overview?run=7", "there are runs 0 to 0"),
        ("/overview?off=nonsense", "expected layers with their units"),
        ("/overview?off=conv9:1", "conv9"),
        ("/unit/conv9/0", "conv9"),
        ("/unit/conv1/99", "unit 99"),
        ("/unit/conv1/x", "unit=x"),
        ("/unit/conv1/²", "unit=²"),
        ("/overview?run=²", "run=²"),
        ("/overview?off=conv1:²", "expected layers with their units"),
        ("/overview?off=conv1:" + "9" * 5000, "expected layers with their units"),
        ("/images/1.png?box=²,1,2,3", "expected top,left,bottom,right"),
        ("/api/analyses/grad_cam?image=²", "image"),
        ("/api/analyses/grad_cam?image=1&target=" + "9" * 5000, "is not one of this network's"),
        ("/units?layer=pool1", "expected a convolution"),
        ("/map?layer=conv9", "layer 'conv9' is not one of the map's"),
        ("/map?method=umap", "method 'umap' is not one of the map's"),
        ("/images?true=9", "there are classes 0 to 2"),
        ("/overview?run=<script>alert(1)</script>", "expected a number"),
    ],
)
def test_a_wrong_address_is_a_page_with_one_line(address: str, path: str, said: str) -> None:
    text = page(address, quote(path, safe="/?=&:,;"), 400)
    assert said in words(text)
    assert "<script>alert" not in text


def test_an_address_that_is_none_is_a_page(address: str) -> None:
    assert "This cannot be shown" in words(page(address, "/nothing", 404))
    assert "error" in json.loads(get(address, "/api/review", "POST", b"[" * 9999, Content_Type="application/json")[1])


def test_a_fault_of_ours_is_a_page_with_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.PAGES, "mistakes", lambda *given: 1 // 0)
    assert "this failed, which is a fault of convscope: ZeroDivisionError" in words(page(address, "/mistakes", 500))


def test_an_address_holds_many_edits(address: str) -> None:
    edits = json.dumps([["paint", [[n % 8 + 0.25, n % 7 + 0.75] for n in range(1900)], 1, "grey"]] * 8)
    address_of_lab = f"/lab?edits={quote(edits)}"
    assert len(address_of_lab) > 300_000
    assert page(address, address_of_lab)
    assert get(address, f"/api/analyses/edit_effect?edit={quote(edits)}&images=8")[0] == 200


def test_a_run_that_is_gone_or_damaged_hides_no_other(reported: Run, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(reported.path, tmp_path / name)
    with served(tmp_path) as address:
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "b" / "spec.yaml").write_text("{")
        text = words(page(address, "/runs"))
        assert text.count("cannot be read") == 2
        assert "evaluated" in text
        assert "net.name" not in text  # settings differ among the runs that can be read
        for name in ("overview", "lab"):
            assert "was removed or renamed" in words(page(address, f"/{name}?run=0", 400))
            assert page(address, f"/{name}?run=2")
        body = json.dumps({"image": 0, "verdict": "label"}).encode()
        answers = [
            get(address, f"/api/{name}") for name in ("analyses/unit_effects?image=0", "nearest?image=0", "review")
        ]
        answers.append(get(address, "/api/review", "POST", body, Content_Type="application/json"))
        assert all(status == 400 and b"was removed or renamed" in content for status, content, _ in answers)
        assert not (tmp_path / "a").exists()  # a judgement would begin a folder that holds nothing else


def test_a_run_that_is_made_again_in_its_folder_is_shown_as_it_is_now(reported: Run, tmp_path: Path) -> None:
    shutil.copytree(reported.path, tmp_path / "a")
    shutil.copytree(reported.path, tmp_path / "b")
    data = reported.load_data()
    with served(tmp_path) as address:
        assert page(address, "/mistakes")
        assert page(address, "/compare?run=1&with=0")
        answer_with(open_run(tmp_path / "a"), data, chosen_logits(data, range(len(data.test) // 2)))
        half = f"of {len(data.test) // 2} mistakes judged"
        assert half in words(page(address, "/mistakes"))
        assert half not in words(page(address, "/mistakes?run=1"))
        assert "50.00 %" in words(page(address, "/compare?run=1&with=0"))


def test_a_page_of_a_run_in_training_says_so_and_follows_it(reported: Run, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    shutil.copytree(reported.path, folder)
    for name in ("model.safetensors", "metrics.json", "predictions.safetensors"):
        (folder / name).unlink()
    with served(folder) as address:
        for name in ("lab", "units", "map", "mistakes"):
            assert "is being trained" in words(page(address, f"/{name}"))
        assert 'id="live"' in page(address, "/overview")
        assert 'data-going="1"' in page(address, "/runs")  # before the first checkpoint, too
        found = json.loads(get(address, "/api/history")[1])
        assert (found["evaluated"], len(found["rows"]), found["epochs"]) == (False, 4, 4)
        shutil.copytree(reported.path, folder, dirs_exist_ok=True)
        assert json.loads(get(address, "/api/history")[1])["evaluated"] is True
        assert "test accuracy" in page(address, "/overview")


def test_runs_below_a_folder_are_added_as_they_come(reported: Run, tmp_path: Path) -> None:
    shutil.copytree(reported.path, tmp_path / "runs" / "one")
    with served(tmp_path / "runs") as address:
        assert "two" not in words(page(address, "/runs"))
        shutil.copytree(reported.path, tmp_path / "runs" / "two")
        assert "two" in words(page(address, "/runs"))
        assert "McNemar" in page(address, "/compare")


def test_what_is_no_run_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        ExploredRuns([tmp_path])
    (tmp_path / "spec.yaml").write_text("{")
    with pytest.raises(RequestError, match="this is no YAML"):
        ExploredRuns([tmp_path])


def test_the_routes_are_those_of_the_catalogue(address: str) -> None:
    paths = json.loads(get(address, "/openapi.json")[1])["paths"]
    assert {f"/api/analyses/{name}" for name in names()} <= paths.keys()
    [layer] = [one for one in paths["/api/analyses/grad_cam"]["get"]["parameters"] if one["name"] == "layer"]
    assert "layer's name" in layer["description"]


@pytest.mark.parametrize("name", ["grad_cam", "unit_effects"])
def test_an_analysis_by_its_route_is_that_of_the_catalogue(address: str, reported: Run, name: str) -> None:
    from safetensors.torch import load

    from convscope.analyses import look
    from convscope.scope import Scope

    image = reported.load_data().test[2][0]
    expected = look(Scope(reported), name, image=image)
    status, body, _ = get(address, f"/api/analyses/{name}?image=2")
    assert status == 200
    assert json.loads(body)["heading"] == expected.heading
    tensors = load(get(address, f"/api/analyses/{name}.safetensors?image=2")[1])
    for key, tensor in expected.tensors.items():
        assert tensors[key].equal(tensor)
    assert get(address, f"/api/analyses/{name}.png?image=2")[1].startswith(b"\x89PNG")


@pytest.mark.parametrize("query", ["", "?image=2&layer=conv9", "?image=99999", "?image=2&colour=red"])
def test_a_wrong_question_is_answered_in_a_line(address: str, query: str) -> None:
    status, body, _ = get(address, f"/api/analyses/grad_cam{query}")
    assert status == 400
    assert "\n" not in json.loads(body)["error"]


def test_a_wrong_setting_is_refused_before_it_waits_for_earlier_work(
    reported: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(*_: Any, **__: Any) -> None:
        raise AssertionError("it was queued")

    monkeypatch.setattr(Explorer, "answer", waits)
    with served(reported.path) as address:
        for name, query, said in (
            ("occlusion", "image=2&size=many", "--size"),
            ("occlusion", "", "--image: occlusion needs one"),
            ("unit_effects", "image=2&position=1", "--position"),
            ("statistics", "colour=red", "--colour: statistics has no such setting"),
        ):
            status, body, _ = get(address, f"/api/analyses/{name}?{query}")
            assert (status, said in json.loads(body)["error"]) == (400, True), body


def test_judgements_are_written_at_once_and_change_the_figures(reported: Run, tmp_path: Path) -> None:
    run = open_run(shutil.copytree(reported.path, tmp_path / "judged"))
    data = run.load_data()
    answer_with(run, data, chosen_logits(data, (1, 4, 9)))
    n = len(data.test)
    with served(run.path) as address:

        def judge(image: int, verdict: str | None) -> dict[str, object]:
            body = json.dumps({"image": image, "verdict": verdict}).encode()
            status, found, _ = get(address, "/api/review", "POST", body, Content_Type="application/json")
            assert status == 200, found
            return json.loads(found)

        assert judge(1, "label")["verdicts"] == {"1": "label"}
        assert read_review(run)["name"].tolist() == [data.test.name(1)]
        judge(4, "model")
        found = judge(9, "ambiguous")
        assert found["without"]["value"] == pytest.approx((n - 3) / (n - 2))  # type: ignore[index]
        assert found["all"]["value"] == pytest.approx((n - 3) / n)  # type: ignore[index]
        assert judge(9, None)["left_out"] == 1
        for body in (
            b'{"image": 1, "verdict": "nonsense"}',
            b'{"image": "x", "verdict": null}',
            b"{",
            b'{"verdict": "label"}',
        ):
            assert get(address, "/api/review", "POST", body, Content_Type="application/json")[0] == 422
        assert (
            get(
                address, "/api/review", "POST", b'{"image": 9999, "verdict": "label"}', Content_Type="application/json"
            )[0]
            == 400
        )
        assert read_review(run)["image"].tolist() == [1, 4]


def test_the_nearest_training_images_are_those_of_the_scope(address: str, reported: Run) -> None:
    from convscope.scope import Scope

    data = reported.load_data()
    expected = Scope(reported).nearest(data.test.subset([5]), data.train, 8)
    found = json.loads(get(address, "/api/nearest?image=5")[1])["nearest"]
    assert [one["row"] for one in found] == expected.index[0].tolist()
    classes = data.train.targets_of()
    assert [one["class"] for one in found] == [data.classes[classes[row]] for row in expected.index[0].tolist()]
    assert get(address, "/api/nearest?image=9999")[0] == 400


def test_images_are_asked_for_again_where_the_data_is_another(address: str, reported: Run) -> None:
    status, body, headers = get(address, "/images/3.png")
    assert (status, headers["cache-control"]) == (200, "private, no-cache")
    assert body.startswith(b"\x89PNG")
    assert get(address, "/images/3.png", If_None_Match=headers["etag"])[0] == 304
    assert get(address, "/images/3.png", If_None_Match='"another"')[0] == 200


@pytest.mark.parametrize(
    "path", ["/images/9999.png", "/images/3.png?box=0,0,99,99", "/images/3.png?split=secret", "/images/x.png"]
)
def test_an_image_that_is_not_there_is_refused(address: str, path: str) -> None:
    status, body, _ = get(address, path)
    assert status in (400, 422)
    assert "error" in json.loads(body)


@pytest.mark.parametrize(("layer", "method"), [("", "pca"), ("conv1", "pca"), ("", "tsne")])
def test_the_map_has_the_points_of_the_scope(address: str, reported: Run, layer: str, method: str) -> None:
    if method == "tsne":
        pytest.importorskip("sklearn")
    from convscope.scope import Scope

    expected = Scope(reported).projection(reported.load_data().test, layer or None, method)
    found = json.loads(get(address, f"/api/projection?layer={layer}&method={method}")[1])
    assert (found["layer"], found["method"], found["kept"]) == (expected.layer, method, expected.kept)
    assert [found["x"], found["y"]] == expected.points.T.tolist()
    assert found["row"] == expected.index.tolist()
    logits, true = reported.predictions["logits"], reported.predictions["target.class"]
    assert found["class"] == true.tolist()
    assert found["predicted"] == logits.argmax(1).tolist()
    assert found["confidence"] == pytest.approx(logits.softmax(1).amax(1).tolist(), abs=1e-4)
    assert found["name"][7] == reported.load_data().test.name(7)
    assert get(address, "/api/projection?layer=conv9")[0] == 400


def test_the_map_says_that_units_off_do_not_change_it(address: str) -> None:
    assert "units that are switched off do not change it" in words(page(address, "/map?off=conv1:1"))
    assert "switched off" not in words(page(address, "/map"))


def test_until_tsne_is_there_the_map_shows_pca_and_the_job(reported: Run, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    run = open_run(shutil.copytree(reported.path, tmp_path / "fresh"))
    shutil.rmtree(run.path / "scans")
    with served(run.path) as address:
        assert '"shown":"pca"' in page(address, "/map")
        first = get(address, "/map?method=tsne", Accept="text/html")[1].decode()
        assert "Computing t-SNE of the features that the logits are read from" in words(first)
        assert '"shown":"pca"' in first
        assert '"shown":"tsne"' in page(address, "/map?method=tsne")


def test_the_points_are_written_for_other_viewers(reported: Run, tmp_path: Path) -> None:
    import pandas as pd

    run = open_run(shutil.copytree(reported.path, tmp_path / "written"))
    with served(run.path) as address:
        status, body, _ = get(address, "/api/embeddings?layer=conv1", "POST")
        points = json.loads(get(address, "/api/projection?layer=conv1")[1])
    assert (status, json.loads(body)["file"]) == (200, str(run.path / "embeddings.parquet"))
    assert pd.read_parquet(run.path / "embeddings.parquet")["x"].tolist() == points["x"]


def test_the_colours_of_classes_are_seen_on_both_grounds() -> None:
    """Those of the light pages are those of the pictures."""
    from convscope.draw.charts import CLASSES

    text = (resources.files("convscope.app") / "static" / "app.css").read_text("utf-8")
    colours = re.findall(r"--class-\d: (#[0-9a-f]{6})", text)
    assert tuple(colours[:10]) == CLASSES
    for ground, shown in (("#ffffff", colours[:10]), ("#1c2026", colours[10:])):
        assert len(set(shown)) == 10
        assert min(contrast(rgb(one), rgb(ground)) for one in shown) >= 3


def test_a_comparison_asks_for_the_other_run_as_it_is_now_and_as_it_is_trusted(reported: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(reported.path, tmp_path / "copy")
    for trust in (True, False):
        asked: dict[str, object] = {}
        state = State(ExploredRuns([reported.path, copy], trust).runs)
        compare(state, lambda question, words, **arguments: asked.update(arguments))  # noqa: B023
        assert (asked["other"], asked["made_at"], asked["trust"]) == (str(copy), times_of(copy), trust)
