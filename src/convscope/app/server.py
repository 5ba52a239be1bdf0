"""The server of the explorer: an application of pages, files, routes and the socket of the lab."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import resources
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from convscope import __version__
from convscope.app import pages
from convscope.app.explored import ExploredRun, ExploredRuns
from convscope.app.explorer import Explorer
from convscope.app.guard import LARGEST_BODY, Guard, TooLargeError
from convscope.app.routes import add_analyses, add_images, add_lab, add_map, add_review, unforeseen_in_words
from convscope.app.state import State
from convscope.compute import NotCachedError
from convscope.errors import ConvscopeError
from convscope.report import static, vega
from convscope.runs import HISTORY, open_run


def create_app(runs: ExploredRuns, token: str | None = None) -> Guard:
    """The explorer as an ASGI application.

    Args:
        runs: that are explored.
        token: that a visitor has to have; None for a server of this machine alone. See `Guard`.
    """
    explorer = Explorer(runs)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await explorer.start()
        yield
        await explorer.close()

    app = FastAPI(title="convscope", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    _add_errors(app)
    _add_files(app)
    _add_pages(app, explorer)
    add_map(app, explorer)
    add_review(app, explorer)
    add_images(app, explorer)
    add_analyses(app, explorer)
    add_lab(app, explorer)
    return Guard(app, token)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ConvscopeError)
    async def refused(request: Request, error: ConvscopeError) -> Response:
        return _refusal(request, 400 if error.exit_status == 2 else 500, str(error))

    @app.exception_handler(TooLargeError)
    async def too_large(request: Request, error: TooLargeError) -> Response:
        return _refusal(request, 413, f"the body has more than {LARGEST_BODY // 10**6} MB")

    @app.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refusal(request, 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.exception_handler(StarletteHTTPException)
    async def other(request: Request, error: StarletteHTTPException) -> Response:
        return _refusal(request, error.status_code, str(error.detail))

    @app.exception_handler(Exception)  # the server's output has the traceback
    async def unexpected(request: Request, error: Exception) -> Response:
        return _refusal(request, 500, unforeseen_in_words(error))


def _refusal(request: Request, status: int, words: str) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(pages.problem(words), status)
    return JSONResponse({"error": words}, status)


def _add_files(app: FastAPI) -> None:
    """Scripts and styles: a fixed list, read once."""
    own = (resources.files("convscope.app") / "static").iterdir()
    files: dict[str, Callable[[], str]] = {file.name: partial(file.read_text, "utf-8") for file in own}
    files |= {name: partial(static, name) for name in ("report.css", "report.js", "tables.js")}
    files["vega.js"] = vega

    @app.get("/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        headers = {"cache-control": "private, max-age=3600"} if name == "vega.js" else {"cache-control": "no-cache"}
        return Response(str(await asyncio.to_thread(files[name])), media_type=kind, headers=headers)


def _add_pages(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/overview")

    # A function of its own, for FastAPI reads each parameter of a route from the query.
    def add_page(name: str) -> None:
        @app.get("/unit/{layer}/{unit}" if name == "unit" else f"/{name}", include_in_schema=False)
        async def page(request: Request) -> Response:
            return await _page(explorer, name, {**request.query_params, **request.path_params})

    for name in pages.PAGES:
        add_page(name)

    @app.get("/api/history")
    async def history(run: int = 0) -> Response:
        """The epochs of a training that are done."""
        return JSONResponse(await explorer.by_page(_history, explorer.runs[run]))

    @app.get("/api/jobs/{key}")
    @app.delete("/api/jobs/{key}")
    async def job(request: Request, key: str) -> Response:
        job = explorer.jobs.find(key)
        if job is None:
            raise HTTPException(404, "there is no such job")
        if request.method == "DELETE":
            explorer.jobs.cancel(job)
        return JSONResponse(job.to_json())


async def _page(explorer: Explorer, name: str, query: Mapping[str, str]) -> Response:
    """A page; what is not known yet is asked for, and the page says that it is being worked out."""
    if name in ("runs", "compare"):
        await explorer.by_page(explorer.runs.refresh)
    state = State.of(explorer.runs.runs, query)
    if name != "runs":  # where one that is gone hides no other
        await explorer.by_page(explorer.runs.__getitem__, state.number)
    cache_misses: list[tuple[str, str, dict[str, Any]]] = []

    def know(question: str, words: str, **arguments: Any) -> Any:
        try:
            return explorer.jobs.known(state.run, question, **arguments)
        except NotCachedError:
            cache_misses.append((question, words, arguments))
            return None

    parts = await explorer.by_page(pages.parts_of, name, state, know)
    jobs = [explorer.jobs.ask(state.run, question, words, **arguments) for question, words, arguments in cache_misses]
    return HTMLResponse(await explorer.by_page(pages.render, name, state, parts, [job.to_json() for job in jobs]))


def _history(explored: ExploredRun) -> dict[str, Any]:
    run = open_run(explored.run.path)  # what was read of it before may be old
    rows = []
    if run.has(HISTORY):
        with suppress(ConvscopeError):  # it is being written
            rows = json.loads(run.history.to_json(orient="records"))
    return {
        "epochs": run.spec.recipe.epochs,
        "rows": rows,
        "trained": run.is_trained,
        "evaluated": explored.is_evaluated,
    }
