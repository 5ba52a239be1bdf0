"""`publish_run`: the folder of `write_card` on the Hugging Face Hub, in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscope import __version__
from convscope.base.console import silenced
from convscope.base.optional import import_optional
from convscope.errors import FailedError, SettingError, first_line
from convscope.runs import MODEL, SPEC, RunOrFolder, open_run
from convscope.share.card import CARD, CONFIG, FAILURES, check_repo, write_card

_LOG_IN = "log in with `hf auth login`, or put a token that may write into HF_TOKEN"


@dataclass(frozen=True)
class Published:
    """What was published, or with `dry_run` would be.

    Attributes:
        repo: its name on the Hub.
        url: of the repository.
        folder: that was sent.
        files: bytes of each of its files.
        commit: the address of the commit that holds it; None where nothing was sent.
        changed: whether this call made that commit; False where the Hub has these very files already.
    """

    repo: str
    url: str
    folder: Path
    files: dict[str, int]
    commit: str | None = None
    changed: bool = False

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"folder": str(self.folder)}


def publish_run(
    run: RunOrFolder,
    repo: str,
    out: str | Path | None = None,
    *,
    private: bool = False,
    dry_run: bool = False,
    message: str | None = None,
) -> Published:
    """A run as a repository of the Hugging Face Hub: the folder of `write_card`, in one commit.

    A repository that is there is updated: files that have not changed are not sent. The token and the address are those of
    huggingface_hub: `HF_TOKEN` or its login, and `HF_ENDPOINT`.

    Args:
        run: trained and evaluated; or its folder.
        repo: `owner/name`.
        out: the folder, `card` in the run folder by default; see `write_card` for what stays in it.
        private: nobody else may see it.
        dry_run: the folder is written and nothing sent.
        message: of the commit.
    Raises:
        SettingError: `repo` is no such name, there is no token, or the repository is there and public and should be private.
        MissingPackageError: huggingface_hub is not installed.
        RunFolderError, ReadOnlyError: see `write_card`.
        FailedError: the Hub refused it, or cannot be reached; the folder is complete all the same.
    """
    hub = import_optional("huggingface_hub", "publishing", "publish")
    check_repo(repo)
    run = open_run(run)
    if not dry_run:
        token = hub.get_token()
        if token is None:
            raise SettingError(f"there is no token for the Hub: {_LOG_IN}")
        if not (token.isascii() and token.isprintable()):  # no request can carry it; the client's error would quote it
            raise SettingError(f"the token for the Hub holds characters that no token has: {_LOG_IN}")
    folder = write_card(run, out, repo)
    files = {name: (folder / name).stat().st_size for name in _FILES if (folder / name).is_file()}
    api = hub.HfApi(library_name="convscope", library_version=__version__)
    url = f"{api.endpoint}/{repo}"
    if dry_run:
        return Published(repo, url, folder, files)
    try:
        with silenced():
            api.create_repo(repo, private=private or None, exist_ok=True)
            before = api.repo_info(repo)
            if private and not before.private:
                raise SettingError(f"{url} is there and public: make it private on its page, or choose another name")
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=message or f"{run.name}, by convscope {__version__}",
                allow_patterns=list(files),
                delete_patterns=FAILURES,  # of a network before that had some
            )
    except SettingError:
        raise
    except Exception as error:  # of huggingface_hub, its HTTP client, or hf_xet
        raise FailedError(_in_words(error, repo, api.endpoint)) from error
    return Published(repo, url, folder, files, commit.commit_url, commit.oid != before.sha)


_FILES = (CARD, CONFIG, MODEL, SPEC, FAILURES)


def _in_words(error: BaseException, repo: str, endpoint: str) -> str:
    """What the Hub or the way to it objects, as one line."""
    chain: list[Any] = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    refusal = next((one for one in chain if getattr(one, "response", None) is not None), None)
    if refusal is not None:
        status, reason = (
            refusal.response.status_code,
            " ".join((getattr(refusal, "server_message", None) or "").split()),
        )
        cure = _CURES.get(status, "try again later").format(owner=repo.split("/")[0])
        return f"{endpoint} refused {repo} with status {status}{f' ({reason})' if reason else ''}: {cure}"
    if type(error).__name__ == "OfflineModeIsEnabled" or any(type(one).__module__.startswith("http") for one in chain):
        return (
            f"{endpoint} cannot be reached ({first_line(error)}); check the connection, HF_ENDPOINT and HF_HUB_OFFLINE"
        )
    return f"{endpoint} did not take {repo} ({type(error).__name__}: {first_line(error)}); try again later"


_CURES = {
    400: "the reason is in the brackets",
    401: f"it does not accept the token; {_LOG_IN}",
    403: f"this token may not write to what belongs to {{owner}}; {_LOG_IN}",
    404: "it knows neither it nor an owner {owner} who could have it; check the name, or HF_ENDPOINT",
}
