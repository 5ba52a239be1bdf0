"""A stand-in for the Hugging Face Hub on this machine: what huggingface_hub asks to create, fill and read a repository."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"


class Hub:
    """Repositories, their files, and all requests.

    `refuse` maps a part of a request, such as "PUT /objects/", to the status that it is answered with.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse: dict[str, int] = {}
        self.url = ""

    def files(self, repo: str) -> dict[str, bytes]:
        return self.repos[repo]["files"]

    def answer(self, verb: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status, and an object as JSON or bytes as they are."""
        match [unquote(part) for part in path.strip("/").split("/")]:
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}
            case ["api", "models", owner, name, *rest] if f"{owner}/{name}" in self.repos:
                return self._of_repo(f"{owner}/{name}", rest, body)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                return 200, {"objects": [self._batch(one) for one in json.loads(body)["objects"]]}
            case ["objects", oid] if verb == "PUT":
                assert hashlib.sha256(body).hexdigest() == oid
                self.objects[oid] = body
                return 200, {}
            case [owner, name, "resolve", _, *file] if "/".join(file) in self.files(f"{owner}/{name}"):
                return 200, self.files(f"{owner}/{name}")["/".join(file)]
        return 404, {"error": "Repository not found"}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{wanted['organization']}/{wanted['name']}"
        there = repo in self.repos
        self.repos.setdefault(repo, {"files": {}, "commits": [], "private": wanted.get("visibility") == "private"})
        return 409 if there else 200, {"url": f"{self.url}/{repo}", "error": "You already created this model repo"}

    def _of_repo(self, repo: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        held, files = self.repos[repo], self.files(repo)
        match rest:
            case [] | ["revision", _]:
                return 200, {
                    "_id": "0",
                    "id": repo,
                    "private": held["private"],
                    "sha": _sha(held),
                    "tags": [],
                    "siblings": [],
                }
            case ["tree", _]:
                return 200, [{"type": "file", "path": name, "size": len(data), "oid": _oid(name, data)}
                             for name, data in files.items()]  # fmt: skip
            case ["preupload", _]:
                return 200, {"files": [
                    {"path": (name := one["path"]), "uploadMode": "lfs" if _is_large(name) else "regular",
                     "shouldIgnore": False, "oid": _oid(name, files[name]) if name in files else None}
                    for one in json.loads(body)["files"]
                ]}  # fmt: skip
            case ["commit", _]:
                return 200, self._commit(repo, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"no such request: {rest}"}

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        held, files = self.repos[repo], self.files(repo)
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        held["commits"].append({"message": message, "files": [line["value"]["path"] for line in lines[1:]]})
        return {"success": True, "commitOid": _sha(held), "commitUrl": f"{self.url}/{repo}/commit/{_sha(held)}"}

    def _batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.objects:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.url}/objects/{wanted['oid']}"}}}


def _is_large(name: str) -> bool:
    return Path(name).suffix in (".safetensors", ".png")


def _oid(name: str, data: bytes) -> str:
    """As Git names a file; a large one by its content."""
    if _is_large(name):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _sha(held: dict[str, Any]) -> str:
    return hashlib.sha1(str(len(held["commits"])).encode()).hexdigest()


@contextmanager
def standing_in() -> Iterator[Hub]:
    """A hub that answers at `hub.url` within."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            refused = next((status for part, status in hub.refuse.items() if part in hub.requests[-1]), None)
            if refused is not None:
                status, content = refused, {"error": "no!"}
            elif not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, content = 401, {"error": "Invalid credentials"}
            else:
                status, content = hub.answer(self.command, path, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = do

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
