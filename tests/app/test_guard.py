"""Who may talk to the explorer, how much, and what is left when they go."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from websockets.exceptions import InvalidStatus

from convscope.app import ExploredRuns, explorer, guard
from convscope.runs import Run
from tests.app.serving import answer, get, lab, run_async, served


@pytest.fixture(scope="module")
def address(reported: Run) -> Iterator[str]:
    with served(reported.path) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(reported: Run) -> Iterator[str]:
    with served(reported.path, token="a-secret") as found:
        yield found


def with_host(address: str, host: str, path: str = "/api/history") -> int:
    with closing(http.client.HTTPConnection(address)) as connection:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        with connection.getresponse() as found:
            return found.status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:8765", "", "localhost.evil:1"]
)
def test_another_sites_name_for_this_machine_is_refused(address: str, host: str) -> None:
    assert with_host(address, host) == 403


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.2:1", "localhost:8765", "[::1]:8765", "[::1]", "localhost"])
def test_this_machines_own_names_are_let_through(address: str, host: str) -> None:
    assert with_host(address, host) == 200


def test_the_socket_and_what_changes_something_are_for_pages_of_this_server(address: str) -> None:
    with pytest.raises(InvalidStatus, match="403"), lab(address, Origin="http://evil.example"):
        pass
    with lab(address, Origin=f"http://{address}") as found:
        assert answer(found, {"seq": 1})[0]["done"]
    assert get(address, "/uploads", "POST", b"x", Origin="http://evil.example")[0] == 403
    assert get(address, "/api/jobs/none", "DELETE", Origin="http://evil.example")[0] == 403
    for origin in ("http://[", "null", f"http://{address}.evil.example"):
        assert get(address, "/uploads", "POST", b"x", Origin=origin)[0] == 403


def test_a_refusal_is_read_by_a_client_whose_body_comes_later(address: str) -> None:
    with closing(http.client.HTTPConnection(address)) as connection:
        connection.putrequest("POST", "/uploads")
        for name, value in {"Origin": "http://evil.example", "Content-Length": "2000000"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        time.sleep(0.2)
        connection.send(bytes(2_000_000))
        with connection.getresponse() as found:
            assert (found.status, found.read()) == (403, b"this comes from a page of another site\n")


def test_with_a_token_nothing_is_told_without_it(guarded: str) -> None:
    for path in ("/", "/overview", "/static/app.css", "/images/0.png", "/openapi.json", "/overview?token=wrong"):
        status, body, _ = get(guarded, path)
        assert (status, b"token" in body) == (403, True)
    with pytest.raises(InvalidStatus, match="403"), lab(guarded):
        pass
    assert get(guarded, "/overview", Cookie="convscope=wrong")[0] == 403


def test_the_token_goes_from_the_address_into_a_cookie(guarded: str) -> None:
    status, _, headers = get(guarded, "/lab?image=3&token=a-secret")
    assert (status, headers["location"]) == (303, "/lab?image=3")
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert cookie == "convscope=a-secret"
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/"}
    assert get(guarded, "/overview", Cookie=cookie)[0] == 200
    with lab(guarded, Cookie=cookie) as found:
        assert answer(found, {"seq": 1})[0]["done"]


def test_the_token_leads_to_no_other_site(guarded: str) -> None:
    assert get(guarded, "//evil.example/?token=a-secret")[2]["location"] == "/evil.example/"
    assert get(guarded, "/%5Cevil.example/?token=a-secret")[2]["location"] == "/%5Cevil.example/"
    assert get(guarded, "/unit/%C3%9F/1?token=a-secret")[2]["location"] == "/unit/%C3%9F/1"


def test_every_answer_carries_the_policy(address: str) -> None:
    for path in ("/overview", "/static/lab.js", "/images/0.png", "/nothing"):
        headers = get(address, path)[2]
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "unsafe-inline" not in policy.replace("style-src 'self' 'unsafe-inline'", "")
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("said", [True, False])
def test_a_body_that_is_too_large_is_cut_off(address: str, said: bool) -> None:
    block = b"x" * 1_000_000
    with closing(http.client.HTTPConnection(address)) as connection:
        with suppress(OSError):  # the server has stopped to read
            if said:
                connection.request("POST", "/uploads", headers={"Content-Length": str(100_000_000)})
            else:
                connection.request("POST", "/uploads", (block for _ in range(100)), encode_chunked=True,
                                   headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        try:
            with connection.getresponse() as found:
                assert found.status == 413
        except (ConnectionError, http.client.HTTPException):
            assert not said  # it hung up on a body of unknown length
    assert get(address, "/overview")[0] == 200


_PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n"


@pytest.mark.parametrize("body", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"0" * 100, _PROGRAM])
def test_an_upload_that_is_no_image_is_refused_in_a_line(address: str, body: bytes) -> None:
    status, found, _ = get(address, "/uploads", "POST", body)
    assert status == 400
    assert "\n" not in json.loads(found)["error"]
    assert ("a program that is not run" in json.loads(found)["error"]) == (body == _PROGRAM)


def test_uploads_are_held_up_to_a_number_of_bytes(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "_UPLOADED_BYTES", 1000)
    held = explorer.Explorer(ExploredRuns([reported.path]))
    names = [held.keep(bytes([k]) * 300) for k in range(5)]
    assert list(held.uploads) == names[2:]


def test_no_path_of_the_client_is_opened(address: str) -> None:
    for path in ("/static/../guard.py", "/static/..%2fguard.py", "/images/..%2f..%2fspec.yaml.png", "/uploads/..%2fx.png",
                 "/static/%2fetc%2fpasswd"):  # fmt: skip
        assert get(address, path)[0] in (400, 404, 422)


def test_more_than_so_many_at_once_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_AT_ONCE", 2)
    run_async(_crowd())


async def _crowd() -> None:
    gate = asyncio.Event()

    async def slow(scope: object, receive: object, send: object) -> None:
        await gate.wait()

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    statuses: list[int] = []

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])  # type: ignore[arg-type]

    guarded = guard.Guard(slow)
    request = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    waiting = [asyncio.create_task(guarded(request, receive, send)) for _ in range(5)]
    await asyncio.sleep(0)
    assert statuses == [429] * 3
    gate.set()
    await asyncio.gather(*waiting)
    await guarded(request, receive, send)
    assert statuses == [429] * 3  # the crowd has gone


@pytest.mark.slow
def test_five_hundred_at_once_and_half_open_connections(reported: Run) -> None:
    with served(reported.path) as address:
        host, _, port = address.partition(":")
        half_open = [socket.create_connection((host, int(port))) for _ in range(50)]
        for one in half_open[:25]:
            one.sendall(b"GET /overview HTTP/1.1\r\nHost: loc")
        statuses: list[int] = []

        def ask(number: int) -> None:
            statuses.append(get(address, f"/images/{number % 10}.png")[0])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == 500
        assert set(statuses) <= {200, 429}
        assert statuses.count(200) > 250
        for one in half_open:
            one.close()
        assert get(address, "/overview")[0] == 200
