"""Answers to new images: by hand from the file to the probability, and what is done with files of every kind."""

from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.errors import DataError, RequestError, SettingError, UnknownNameError
from convscope.nets import Head, Task
from convscope.runs import Run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files as people have them: large, oblong, grey, with alpha, of 16 bits, turned by the camera, hidden, damaged."""
    folder, random = tmp_path / "photos", np.random.default_rng(0)
    (folder / "inner" / "most").mkdir(parents=True)
    Image.fromarray(random.integers(0, 256, (24, 40, 3), np.uint8)).save(folder / "b.png")
    Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(folder / "a.bmp")
    Image.fromarray(random.integers(0, 256, (16, 16, 4), np.uint8)).save(folder / "inner" / "c.png")
    Image.fromarray(random.integers(0, 65536, (9, 9)).astype(np.uint16)).save(folder / "inner" / "most" / "d.png")
    turned = Image.fromarray(random.integers(0, 256, (8, 16, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "inner" / "most" / "e.jpg", exif=exif)
    (folder / "inner" / "most" / "f.jpg").write_bytes(b"no image")
    (folder / ".g.png").write_bytes(b"hidden")
    (folder / "notes.txt").write_text("mine")
    (folder / "inner" / "again").symlink_to(folder)  # a loop
    return folder


def by_hand(run: Run, image: Image.Image) -> np.ndarray:
    """Probabilities of one image of the network's own size."""
    pixels = np.asarray(image.convert("RGB"), np.float64) / 255
    normal = (pixels - np.array(run.card.mean)) / np.array(run.card.std)
    with torch.no_grad():
        logits = run.net(torch.tensor(normal.transpose(2, 0, 1)[None]).float())[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


def test_the_probabilities_are_the_networks_of_the_file(reported: Run, photos: Path) -> None:
    found = reported.predict(photos / "a.bmp", probabilities=True)
    expected = by_hand(reported, Image.open(photos / "a.bmp"))
    assert found[[f"p({name})" for name in reported.classes]].to_numpy()[0] == pytest.approx(expected, abs=1e-6)
    assert found["class"][0] == reported.classes[expected.argmax()]
    assert found["probability"][0] == pytest.approx(expected.max(), abs=1e-6)


def test_test_images_get_the_answers_that_evaluate_stored(reported: Run) -> None:
    test = reported.load_data().test
    found = reported.predict(test.images(), probabilities=True, batch=7)
    stored = reported.predictions["logits"].softmax(1)
    assert found.filter(like="p(").to_numpy() == pytest.approx(stored.numpy(), abs=1e-5)
    assert list(found["file"]) == [str(n) for n in range(len(test))]


def test_a_network_in_training_mode_answers_as_it_is_and_is_left_so(reported: Run) -> None:
    image = reported.load_data().test[0][0]
    expected = reported.predict(image)
    reported.net.train()
    try:
        assert reported.predict(image).equals(expected)
        assert reported.net.training
    finally:
        reported.net.eval()


def test_the_network_is_where_it_was_after_the_answers(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device without numbers stands for a GPU: on it the network fails."""
    moves: list[str] = []
    monkeypatch.setattr(reported.net, "forward", lambda images: 1 / 0)
    monkeypatch.setattr(reported.net, "to", lambda device: moves.append(str(device)) or reported.net)
    with pytest.raises(ZeroDivisionError):
        reported.predict(reported.load_data().test[0][0], device="meta")
    assert moves == ["meta", "cpu"]


def test_folders_are_gone_through_and_what_cannot_be_read_is_named(reported: Run, photos: Path) -> None:
    found = reported.predict(photos)
    names = ["a.bmp", "b.png", "inner/c.png", "inner/most/d.png", "inner/most/e.jpg", "inner/most/f.jpg"]
    assert list(found["file"]) == [str(photos / name) for name in names]
    assert list(found["problem"]) == [""] * 5 + ["is no image"]
    assert found["class"].isna().tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_batches_change_nothing(reported: Run, photos: Path, batch: int) -> None:
    pd.testing.assert_frame_equal(reported.predict(photos, batch=batch), reported.predict(photos), rtol=1e-5)


def test_so_many_classes_the_most_probable_first(reported: Run, photos: Path) -> None:
    found = reported.predict([photos / "b.png"], top=5, probabilities=True)  # there are three
    ranked = found.filter(regex=r"^p\(").iloc[0].sort_values(ascending=False)
    assert [found[f"class{n}"][0] for n in ("", " 2", " 3")] == [name[2:-1] for name in ranked.index]
    assert [found[f"probability{n}"][0] for n in ("", " 2", " 3")] == pytest.approx(list(ranked))


def test_views_are_means_over_the_changed_images(reported: Run) -> None:
    image = reported.load_data().test[0][0]
    padded = torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    moved = [padded[:, 1:9, 1:9], padded[:, :8, 1:9], padded[:, 2:, 1:9], padded[:, 1:9, :8], padded[:, 1:9, 2:]]

    def mean(images: list[torch.Tensor]) -> np.ndarray:
        return reported.predict(torch.stack(images), probabilities=True).filter(like="p(").to_numpy().mean(0)

    for views, seen in {
        ("mirror",): [image, image.flip(-1)],
        ("shifts",): moved,
        ("mirror", "shifts"): [*moved, *(one.flip(-1) for one in moved)],
    }.items():
        found = reported.predict(image, probabilities=True, views=views).filter(like="p(").to_numpy()[0]
        assert found == pytest.approx(mean(seen), abs=1e-6)


def test_of_several_heads_each_has_its_columns(tmp_path: Path) -> None:
    data = cs.load_data("lines", limit=480, split="60/40")
    net = cs.build_net("c4 M f8", classes=13, channels=3, image_size=28)
    run = cs.train(
        net,
        data,
        cs.Recipe(epochs=1, batch=48),
        tmp_path / "run",
        device="cpu",
        task={"colour": "sigmoid", "angle": "softmax"},
    )
    found = run.predict(data.test.images([0, 1]), probabilities=True)
    names = [f"p({name})" for name in run.task.classes]
    assert list(found) == [
        "file", "colour", "colour probability", *names[: len(run.task.heads[0].classes)],
        "angle", "angle probability", *names[len(run.task.heads[0].classes) :], "problem",
    ]  # fmt: skip


def answering(run: Run, *heads: Head) -> Run:
    """The same run, as if its three outputs were those of these heads."""
    other = copy(run)
    vars(other)["task"] = Task(heads)
    return other


def test_targets_that_are_called_like_a_column_have_columns_of_their_own(reported: Run, photos: Path) -> None:
    heads = Head("problem", "sigmoid", ("no", "yes")), Head("file", "softmax", ("a", "b"), start=1)
    found = answering(reported, *heads).predict([photos / "a.bmp", photos / "inner" / "most" / "f.jpg"])
    assert list(found) == [
        "file", "problem class", "problem probability", "file class", "file probability", "problem",
    ]  # fmt: skip
    assert found["problem"].tolist() == ["", "is no image"]
    assert found["problem class"][0] in ("no", "yes")
    assert found["file class"].isna().tolist() == [False, True]


def test_two_columns_of_one_name_are_refused(reported: Run, photos: Path) -> None:
    heads = Head("a", "sigmoid", ("no", "yes")), Head("a 2", "softmax", ("x", "y"), start=1)
    assert list(answering(reported, *heads).predict(photos / "a.bmp").filter(like="a")) != []
    with pytest.raises(SettingError, match=r"^two columns of the answers would be called 'a 2'; give the targets of "):
        answering(reported, *heads).predict(photos / "a.bmp", top=2)


def test_images_as_the_run_takes_them(reported: Run, photos: Path) -> None:
    images = cs.load_images([photos / "a.bmp", photos / "b.png"], like=reported)
    assert images.shape == (2, *reported.input_shape)
    alike = reported.predict(images)["probability"].tolist()
    assert alike == pytest.approx(reported.predict([photos / "a.bmp", photos / "b.png"])["probability"].tolist())
    with pytest.raises(DataError, match=r"f\.jpg: is no image"):
        cs.load_images(photos, like=reported)


@pytest.mark.usefixtures("annotations_unchecked")
def test_wrong_requests_are_one_line(reported: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images, settings, error, words in [
        ("none.png", {}, DataError, "none.png: there is no such file or folder"),
        (str(tmp_path / "empty"), {}, DataError, "empty: holds no image file"),
        ([], {}, DataError, "no images are given"),
        (photos, {"top": 0}, SettingError, "top: 0; expected 1 or more"),
        (photos, {"views": ["miror"]}, UnknownNameError, "did you mean 'mirror'"),
        (torch.zeros(3, 9, 9), {}, RequestError, "images have the shape 3×9×9"),
    ]:
        with pytest.raises(error, match=words):
            reported.predict(images, **settings)  # type: ignore[arg-type]
