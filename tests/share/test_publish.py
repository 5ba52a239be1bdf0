"""`publish`: the Hub holds the folder byte for byte, in one commit; what it refuses is one line. A stand-in answers for it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from convscope.errors import SettingError
from convscope.runs import Run, open_run
from convscope.share import publish_run
from tests.cli.conftest import Command, command
from tests.planted import answer_with, chosen_logits
from tests.share.hub import TOKEN, Hub, standing_in

__all__ = ["command"]

REPO = "somebody/spots"
FILES = {"README.md", "config.json", "failures.png", "model.safetensors", "spec.yaml"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """In place of the real one, for this process."""
    with standing_in() as hub:
        for name, value in {
            "ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():  # fmt: skip
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()  # it goes by the proxies of the environment in which it was opened
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def wrong(reported: Run, tmp_path: Path) -> Run:
    """A run that errs on two test images."""
    return _that_errs_on(reported, tmp_path / "wrong", [0, 7])


def _that_errs_on(reported: Run, folder: Path, rows: list[int]) -> Run:
    shutil.copytree(reported.path, folder, dirs_exist_ok=True)
    data = reported.load_data()
    answer_with(open_run(folder), data, chosen_logits(data, rows))
    return open_run(folder)


def _files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_hub_holds_the_folder_byte_for_byte_in_one_commit(
    command: Command, hub: Hub, wrong: Run, tmp_path: Path
) -> None:
    card = tmp_path / "card"
    card.mkdir()
    (card / "notes.txt").write_text("mine alone")
    done = command("publish", wrong.path, REPO, "--out", card, "--message", "First weights", "--json")
    assert (done.status, done.err) == (0, "")
    assert set(hub.files(REPO)) == FILES
    assert hub.files(REPO) == {name: data for name, data in _files_of(card).items() if name in FILES}
    [commit] = hub.repos[REPO]["commits"]
    assert (commit["message"], hub.repos[REPO]["private"]) == ("First weights", False)
    assert done.json["changed"]
    assert done.json["commit"].startswith(f"{hub.url}/{REPO}/commit/")
    assert done.json["files"] == {name: len(data) for name, data in hub.files(REPO).items()}
    assert f'snapshot_download("{REPO}")' in hub.files(REPO)["README.md"].decode()


def test_published_again_only_what_has_changed_is_sent(command: Command, hub: Hub, wrong: Run, reported: Run) -> None:
    first = command("publish", wrong.path, REPO)
    assert f"published: {hub.url}/{REPO}, commit {hub.url}/{REPO}/commit/" in first.out
    hub.requests.clear()
    again = command("publish", wrong.path, REPO)
    assert f"nothing has changed: {hub.url}/{REPO} has these files already, commit" in again.out
    assert not any(request.startswith("PUT") or "/commit/" in request for request in hub.requests)
    _that_errs_on(reported, wrong.path, [])
    command("publish", wrong.path, REPO)
    assert sorted(hub.repos[REPO]["commits"][1]["files"]) == ["README.md", "failures.png"]
    assert set(hub.files(REPO)) == FILES - {"failures.png"}
    assert hub.files(REPO) == _files_of(wrong.path / "card")


def test_what_the_publisher_wrote_stays(command: Command, hub: Hub, wrong: Run) -> None:
    command("card", wrong.path)
    page = wrong.path / "card" / "README.md"
    start, end = page.read_text("utf-8").split("## Intended use\n\n")
    own = "For spots.\n\n### Not for\n\nanything | else."
    page.write_text(start.replace("tags:\n", "license: mit\ntags:\n- spots\n") + f"## Intended use\n\n{own}\n\n## Per" +
                    end.split("## Per", 1)[1], "utf-8")  # fmt: skip
    for _ in range(2):
        command("publish", wrong.path, REPO)
        sent = hub.files(REPO)["README.md"].decode()
        assert f"## Intended use\n\n{own}\n\n## Per-class metrics\n" in sent
        data = huggingface_hub.ModelCard(sent).data
        assert (data.license, data.tags) == ("mit", ["image-classification", "convscope", "pytorch", "spots"])
    page.write_text("---\na: [\n---\n", "utf-8")
    assert "README.md line" in command("publish", wrong.path, REPO).complaint
    assert page.read_text("utf-8") == "---\na: [\n---\n"


def test_a_dry_run_writes_the_folder_and_asks_nobody(
    command: Command, hub: Hub, wrong: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = command("publish", wrong.path, REPO, "--dry-run", "--out", tmp_path / "card")
    assert (done.status, hub.requests) == (0, [])
    found = _files_of(tmp_path / "card")
    assert set(found) == FILES
    for name, data in found.items():
        assert f"  {name}  {len(data):,} bytes" in done.out
    assert f"not sent: without --dry-run it goes to {hub.url}/{REPO}" in done.out


def test_private_is_private_or_nothing_is_sent(command: Command, hub: Hub, wrong: Run) -> None:
    assert command("publish", wrong.path, REPO, "--private").status == 0
    assert hub.repos[REPO]["private"]
    command("publish", wrong.path, REPO)
    assert hub.repos[REPO]["private"]
    hub.repos[REPO] = {"files": {}, "commits": [], "private": False}
    done = command("publish", wrong.path, REPO, "--private")
    assert done.status == 2
    assert done.complaint == (
        f"{hub.url}/{REPO} is there and public: make it private on its page, or choose another name"
    )
    assert hub.files(REPO) == {}


@pytest.mark.parametrize(
    "repo", ["spots", "a/b/c", "some body/spots", "somebody/", "/spots", "a/b--c", "a/..", "", "a/b\n"]
)
def test_a_name_that_is_none(command: Command, hub: Hub, wrong: Run, repo: str) -> None:
    done = command("publish", wrong.path, repo)
    assert done.status == 2
    assert done.complaint.startswith(repr(repo).replace("\\", "\\"))
    assert "is no name for a repository; expected owner/name of letters, digits, -, _ and ." in done.complaint
    assert not (wrong.path / "card").exists()
    assert hub.requests == []


@pytest.mark.parametrize(
    ("part", "status", "expected"),
    [
        (
            "/api/repos/create",
            401,
            "refused somebody/spots with status 401 (no!): it does not accept the token; log in with",
        ),
        (
            "/api/",
            403,
            "(no!): this token may not write to what belongs to somebody; log in with `hf auth login`, or put a",
        ),
        ("/preupload/", 403, "with status 403 (no!): this token may not write"),
        (
            "/api/repos/create",
            404,
            "404 (no!): it knows neither it nor an owner somebody who could have it; check the name",
        ),
        ("/api/repos/create", 409, "did not take somebody/spots (KeyError: 'url'); try again later"),
        ("/api/repos/create", 500, "with status 500 (no!): try again later"),
        ("/lfs/objects/batch", 403, "with status 403 (no!): this token may not write"),
        ("PUT /objects/", 403, "with status 403 (no!): this token may not write"),
        ("/commit/", 400, "with status 400 (no!): the reason is in the brackets"),
        ("/commit/", 412, "with status 412 (no!): try again later"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    command: Command, hub: Hub, wrong: Run, part: str, status: int, expected: str
) -> None:
    hub.refuse[part] = status
    done = command("publish", wrong.path, REPO)
    assert done.status == 1
    assert done.complaint.startswith(hub.url)
    assert expected in done.complaint
    assert TOKEN not in done.complaint
    assert set(_files_of(wrong.path / "card")) == FILES
    if REPO in hub.repos:
        assert hub.files(REPO) == {}


def test_no_token_no_way_and_no_package(
    command: Command, hub: Hub, wrong: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in command("publish", wrong.path, REPO).complaint
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for endpoint in ("http://127.0.0.1:9", "huggingface", "http://"):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        done = command("publish", wrong.path, REPO)
        assert done.status == 1
        assert done.complaint.startswith(f"{endpoint} cannot be reached (")
    shutil.rmtree(wrong.path / "card")
    monkeypatch.delenv("HF_TOKEN")
    done = command("publish", wrong.path, REPO)
    assert (done.status, done.complaint) == (
        2, "there is no token for the Hub: log in with `hf auth login`, or put a token that may write into HF_TOKEN",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = command("publish", wrong.path, REPO)
    assert done.status == 2
    assert done.complaint.endswith("pip install 'convscope[publish]'")
    assert hub.requests == []
    assert not (wrong.path / "card").exists()


def test_a_token_that_no_request_can_carry_is_not_printed(
    command: Command, hub: Hub, wrong: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in ("hf_a\x01b", "hf_gehéim"):
        monkeypatch.setenv("HF_TOKEN", token)
        done = command("publish", wrong.path, REPO)
        assert done.status == 2
        assert done.complaint.startswith("the token for the Hub holds characters that no token has: log in")
    assert hub.requests == []


def test_python_says_the_same(hub: Hub, wrong: Run) -> None:
    done = publish_run(wrong, REPO, private=True)
    assert done.commit is not None
    assert (done.changed, set(done.files)) == (True, FILES)
    with pytest.raises(SettingError, match="'spots' is no name for a repository"):
        publish_run(wrong, "spots")


@pytest.mark.parametrize("xet", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_the_command_alone_with_the_environment_of_a_user(hub: Hub, wrong: Run, tmp_path: Path, xet: str) -> None:
    """Endpoint and token from the environment; where the storage of the Hub's large files refuses, nothing is committed."""
    own: dict[str, str] = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": xet, "HF_TOKEN": TOKEN,
    }  # fmt: skip
    found: Any = subprocess.run(
        [sys.executable, "-m", "convscope", "publish", str(wrong.path), REPO, "--json"],
        capture_output=True, text=True, check=False, env=own, timeout=300,
    )  # fmt: skip
    if xet == "1":
        assert found.returncode == 0, found.stderr
        assert set(json.loads(found.stdout)["files"]) == set(hub.files(REPO)) == FILES
    else:
        [line] = found.stderr.splitlines()
        assert (found.returncode, found.stdout) == (1, "")
        assert line.startswith(f"convscope: {hub.url} ")
        assert hub.files(REPO) == {}
