"""The server of the explorer: pages, pictures, a WebSocket for the lab, and all analyses as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from hashlib import blake2b
from importlib import resources
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from torch import Tensor

from convscope import __version__
from convscope.analyses import find, names, small_picture
from convscope.app import pages
from convscope.app.explored import ExploredRun, ExploredRuns, UnitsOff
from convscope.app.guard import LARGEST_BODY, Guard, TooLargeError
from convscope.app.jobs import Jobs
from convscope.app.lab import LIVE_LENSES, Lab, LabRequest, eight_bits
from convscope.app.questions import analysis
from convscope.compute import NotCachedError
from convscope.data import read_image
from convscope.draw import Picture, enlarge_to, picture, png
from convscope.errors import ConvscopeError, RequestError, first_line
from convscope.report import static, vega
from convscope.runs import HISTORY, Verdict, open_run, read_review, remove_verdict, write_verdict
from convscope.scans import reviewed_accuracy

T = TypeVar("T")

_LOG = logging.getLogger("uvicorn.error")
_UPLOADS_HELD, _UPLOADED_BYTES = 64, 2**27
_LARGEST_MESSAGE = 1 << 18  # of the lab's socket: 200 edits with long strokes
_SLOW_CLIENT_S = 30
_OF_ROUTE = ("run", "image", "edit")  # which an analysis may have as a setting, too
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
_OWN_FILES = (
    "app.css", "common.js", "compare.js", "lab.js", "live.js", "mistakes.js", "overview.js", "runs.js", "unit.js",
)  # fmt: skip


class Explorer:
    """What the routes share: the runs, their labs, the threads in which networks run, uploads and jobs.

    Args:
        runs: that are explored.
    """

    def __init__(self, runs: ExploredRuns) -> None:
        self.runs, self._labs = runs, dict[int, Lab]()
        self.uploads: OrderedDict[str, bytes] = OrderedDict()
        self._network = ThreadPoolExecutor(1, "convscope-network")  # a network answers one request at a time
        self._pages = ThreadPoolExecutor(2, "convscope-pages")

    async def start(self) -> None:
        """Begins to load the first run's data and network, so that the first page finds them."""
        self.jobs = Jobs(self.runs.trust)
        self._network.submit(_load, self.runs[0])

    async def close(self) -> None:
        """Ends what still runs."""
        await self.jobs.close()
        for pool in (self._network, self._pages):
            pool.shutdown(wait=False, cancel_futures=True)

    async def by_network(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work in the thread that owns the networks, first come first served."""
        return await asyncio.get_running_loop().run_in_executor(self._network, work, *arguments)

    async def by_page(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work that does not run a network."""
        return await asyncio.get_running_loop().run_in_executor(self._pages, work, *arguments)

    def lab(self, number: int) -> Lab:
        """The lab of a run, by its number."""
        if number not in self._labs:
            self._labs[number] = Lab(self.runs[number])
        return self._labs[number]

    async def answer(self, run: ExploredRun, question: str, words: str, **arguments: Any) -> Any:
        """The answer to a slow question, when it is there.

        Raises:
            RequestError: there is none, in the words of what went wrong.
        """
        job = self.jobs.ask(run, question, words, **arguments)
        if job.task is not None:
            await asyncio.shield(job.task)
        if job.error is not None:
            raise RequestError(job.error)
        return job.result

    def keep(self, content: bytes) -> str:
        """Holds an uploaded image under the name that is given back; of many the oldest are let go."""
        name = f"u{blake2b(content, digest_size=8).hexdigest()}"
        self.uploads[name] = content
        self.uploads.move_to_end(name)
        while len(self.uploads) > _UPLOADS_HELD or sum(map(len, self.uploads.values())) > _UPLOADED_BYTES:
            self.uploads.popitem(last=False)
        return name

    def uploaded(self, number: int) -> Callable[[str], Tensor]:
        """Gives an uploaded image, as a run's network takes it, by its name."""
        run = self.runs[number].run

        def image(name: str) -> Tensor:
            content = self.uploads.get(name)
            if content is None:
                raise RequestError(f"image {name}: it is not here any more; upload it again")
            return read_image(content, run.input_shape, run.bits)

        return image


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
    _add_review(app, explorer)
    _add_images(app, explorer)
    _add_analyses(app, explorer)
    _add_lab(app, explorer)
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
    async def unforeseen(request: Request, error: Exception) -> Response:
        return _refusal(request, 500, _unforeseen(error))


def _unforeseen(error: Exception) -> str:
    return f"this failed, which is a fault of convscope: {type(error).__name__}: {first_line(error)}"


def _refusal(request: Request, status: int, words: str) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(pages.problem(words), status)
    return JSONResponse({"error": words}, status)


def _add_files(app: FastAPI) -> None:
    """Scripts and styles: a fixed list, read once."""
    own = resources.files("convscope.app") / "static"
    files: dict[str, Callable[[], str]] = {name: partial((own / name).read_text, "utf-8") for name in _OWN_FILES}
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

    for name in pages.PAGES:

        async def page(request: Request, name: str = name) -> Response:
            return await _page(explorer, name, request.query_params, {})

        app.get(f"/{name}", include_in_schema=False)(page)

    @app.get("/unit/{layer}/{unit}", include_in_schema=False)
    async def unit(request: Request, layer: str, unit: str) -> Response:
        return await _page(explorer, "unit", request.query_params, {"layer": layer, "unit": unit})

    @app.get("/api/history")
    async def history(run: int = 0) -> Response:
        """The epochs of a training that are done."""
        return JSONResponse(await explorer.by_page(_history, explorer.runs[run]))

    @app.get("/api/jobs/{key}")
    async def job(key: str) -> Response:
        found = explorer.jobs.find(key)
        if found is None:
            raise HTTPException(404, "there is no such job")
        return JSONResponse(found.to_json())

    @app.delete("/api/jobs/{key}")
    async def cancel(key: str) -> Response:
        found = explorer.jobs.find(key)
        if found is None:
            raise HTTPException(404, "there is no such job")
        explorer.jobs.cancel(found)
        return JSONResponse(found.to_json())


async def _page(explorer: Explorer, name: str, query: Mapping[str, str], path: dict[str, str]) -> Response:
    """A page; what is not known yet is asked for, and the page says that it is being worked out."""
    if name == "runs":
        await explorer.by_page(explorer.runs.refresh)
    state = pages.State.of(explorer.runs.runs, {**query, **path})
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def know(question: str, words: str, **arguments: Any) -> Any:
        try:
            return explorer.jobs.known(state.run, question, **arguments)
        except NotCachedError:
            asked.append((question, words, arguments))
            return None

    make = pages.page_of(name)
    parts = await explorer.by_page(make, state, know)
    jobs = [explorer.jobs.ask(state.run, question, words, **arguments) for question, words, arguments in asked]
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


def _add_review(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/api/nearest")
    async def nearest(image: int, run: int = 0) -> Response:
        """The training images that are nearest to a test image."""
        found = explorer.runs[run]
        await explorer.by_page(found.image, image)  # says at once that there is none
        answer = await explorer.answer(found, "nearest", f"the training images nearest to image {image}", row=image)
        train, classes = found.data.train, found.data.train.classes["class"]
        targets = train.targets_of("class")
        rows = zip(answer.index[0].tolist(), answer.similarity[0].tolist(), strict=True)
        nearest = [{"row": row, "class": classes[targets[row]], "similarity": round(value, 3)} for row, value in rows]
        return JSONResponse({"nearest": nearest})

    @app.get("/api/review")
    async def read(run: int = 0) -> Response:
        """What was judged of the mistakes, and the accuracy without doubtful labels."""
        return JSONResponse(await explorer.by_page(_review, explorer.runs[run]))

    @app.post("/api/review")
    async def judge(judgement: Judgement, run: int = 0) -> Response:
        """Writes, or takes back, what was judged of an image."""
        return JSONResponse(await explorer.by_page(_judge, explorer.runs[run], judgement))


class Judgement(BaseModel):
    """What is judged of a test image: see `convscope.runs.Verdict`; None takes it back."""

    image: int
    verdict: Verdict | None


def _judge(explored: ExploredRun, judgement: Judgement) -> dict[str, Any]:
    explored.image(judgement.image)
    if judgement.verdict is None:
        remove_verdict(explored.run, judgement.image)
    else:
        write_verdict(explored.run, judgement.image, explored.test.name(judgement.image), judgement.verdict)
    return _review(explored)


def _review(explored: ExploredRun) -> dict[str, Any]:
    rows, found = read_review(explored.run), reviewed_accuracy(explored.run)
    left_out = found.n_wrong_labels + found.n_ambiguous
    return {
        "verdicts": dict(zip(map(str, rows["image"].tolist()), rows["verdict"].tolist(), strict=True)),
        "all": found.all_images.to_json(), "without": found.without_doubtful.to_json() if left_out else None,
        "left_out": left_out,
    }  # fmt: skip


def _add_images(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/images/{row}.png")
    async def image(row: int, run: int = 0, side: int = 0, box: str = "", split: str = "test") -> Response:
        """An image of the run's data, enlarged by repetition to at least `side` px.

        Of its part in `box`, where that is given: top,left,bottom,right.
        """
        found = explorer.runs[run]
        return Response(
            await explorer.by_page(_png, found, split, row, side, box), media_type="image/png", headers=_FOR_EVER
        )

    @app.get("/attribution/{row}.png")
    async def attribution(row: int, run: int = 0, lens: str = "grad_cam", off: str = "") -> Response:
        """The attribution of a test image for the predicted class, over the image."""
        found = explorer.runs[run]
        if lens not in LIVE_LENSES:
            raise RequestError(f"lens={lens}: expected one of {', '.join(LIVE_LENSES)}")
        shown = await explorer.by_network(_attribution, found, row, lens, pages.units_off(off))
        return Response(png(shown), media_type="image/png")

    @app.post("/uploads")
    async def upload(request: Request, run: int = 0) -> Response:
        """An image file as the body; the answer has the name by which the lab knows it."""
        content = await request.body()
        found = explorer.runs[run].run
        await explorer.by_page(read_image, content, found.input_shape, found.bits)  # says at once what is no image
        return JSONResponse({"image": explorer.keep(content)})

    @app.get("/uploads/{name}.png")
    async def uploaded(name: str, run: int = 0) -> Response:
        """An uploaded image as the network sees it."""
        image = await explorer.by_page(explorer.uploaded(run), name)
        return Response(png(eight_bits(image).numpy()), media_type="image/png", headers=_FOR_EVER)


def _png(explored: ExploredRun, split: str, row: int, side: int, box: str) -> bytes:
    images = getattr(explored.data, split, None) if split in ("train", "val", "test") else None
    if images is None or not 0 <= row < len(images):
        raise RequestError(f"image {row} of {split}: there is none")
    image = images[row][0]
    if box:
        edges = [int(edge) for edge in box.split(",") if pages.is_number(edge)]
        _, height, width = image.shape
        if len(edges) != 4 or not (0 <= edges[0] < edges[2] <= height and 0 <= edges[1] < edges[3] <= width):
            raise RequestError(f"box {box}: expected top,left,bottom,right in pixels of the image")
        image = image[:, edges[0] : edges[2], edges[1] : edges[3]]
    shown = picture(image)
    return png(enlarge_to(shown, min(side, 512)) if side else shown)


def _attribution(explored: ExploredRun, row: int, lens: str, off: UnitsOff) -> Picture:
    image = explored.image(row)
    return enlarge_to(small_picture(explored.scope_without(off).attribute(lens, image), image), 192)


def _add_analyses(app: FastAPI, explorer: Explorer) -> None:
    """Each analysis of the catalogue as a route of its own, with the settings of its request."""
    for name in names():
        about = find(name)
        parameters = [
            {"name": key, "in": "query", "required": field.is_required(), "schema": {"type": "string"},
             "description": field.description or ""}
            for key, field in about.request.model_fields.items()
        ]  # fmt: skip
        for ending in ("", ".png", ".safetensors"):

            async def ask(
                request: Request,
                run: int = 0,
                image: str = "",
                edit: str = "[]",
                name: str = name,
                ending: str = ending,
            ) -> Response:
                own = find(name).request.model_fields
                settings = {
                    key: value for key, value in request.query_params.items() if key in own or key not in _OF_ROUTE
                }
                found = explorer.runs[run]
                inputs = await explorer.by_page(_inputs, explorer, run, image, edit, find(name).reads == "image")
                if name in LIVE_LENSES:
                    result = await explorer.by_network(partial(analysis, found, name, inputs, settings))
                    return _as_response(result, ending)
                result = await explorer.answer(found, "analysis", name, name=name, image=inputs, settings=settings)
                return _as_response(result, ending)

            app.get(
                f"/api/analyses/{name}{ending}", name=f"{name}{ending}", summary=about.about,
                openapi_extra={"parameters": parameters},
            )(ask)  # fmt: skip


def _inputs(explorer: Explorer, run: int, image: str, edit_list: str, wants_image: bool) -> Tensor | None:
    if not wants_image or not image:
        return None
    state: dict[str, Any] = {
        "run": run,
        "image": int(image) if pages.is_number(image) else image,
        "edits": _json(edit_list),
    }
    return explorer.lab(run).image(_checked(state), explorer.uploaded(run))


def _as_response(found: dict[str, Any], ending: str) -> Response:
    if ending == ".png":
        return Response(found["png"], media_type="image/png")
    if ending == ".safetensors":
        from safetensors.torch import save

        return Response(save(found["tensors"]), media_type="application/octet-stream")
    shapes = {key: list(tensor.shape) for key, tensor in found["tensors"].items()}
    rows = None if found["table"] is None else json.loads(found["table"])
    return JSONResponse({key: found[key] for key in ("heading", "note", "remark")} | {"table": rows, "tensors": shapes})


def _add_lab(app: FastAPI, explorer: Explorer) -> None:
    @app.websocket("/lab/socket")
    async def lab(socket: WebSocket) -> None:
        await socket.accept()
        newest: list[LabRequest] = []
        came = asyncio.Event()
        answering = asyncio.create_task(_answer(explorer, socket, newest, came))
        try:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                try:
                    request = _checked(_json(message.get("text") or ""))
                except RequestError as error:
                    await socket.send_json({"error": str(error)})
                    continue
                newest[:] = [request]
                came.set()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await answering


async def _answer(explorer: Explorer, socket: WebSocket, newest: list[LabRequest], came: asyncio.Event) -> None:
    """Answers the newest request, as long as the client is there; a newer one ends the answer to an older."""
    while True:
        await came.wait()
        came.clear()
        request = newest[0]
        parts: Iterator[dict[str, Any] | bytes] | None = None
        try:
            while True:
                try:
                    part, parts = await explorer.by_network(_next_part, explorer, request, parts, came.is_set)
                except ConvscopeError as error:
                    part, parts = {"seq": request.seq, "error": str(error)}, iter(())
                except Exception as error:  # the socket goes on
                    _LOG.exception("the lab could not answer")
                    part, parts = {"seq": request.seq, "error": _unforeseen(error)}, iter(())
                if part is None:
                    break
                sending = socket.send_bytes(part) if isinstance(part, bytes) else socket.send_json(part)
                await asyncio.wait_for(sending, _SLOW_CLIENT_S)
        except TimeoutError:
            await socket.close(1008)
            return


def _next_part(
    explorer: Explorer, request: LabRequest, parts: Iterator[Any] | None, is_superseded: Callable[[], bool]
) -> tuple[Any, Iterator[Any] | None]:
    """The next part of an answer, None after the last, and where it comes from."""
    if parts is None:
        parts = explorer.lab(request.run).answer(request, explorer.uploaded(request.run), is_superseded)
    return next(parts, None), parts


def _json(text: str) -> Any:
    if len(text) > _LARGEST_MESSAGE:
        raise RequestError(f"this has {len(text):,} characters; send {_LARGEST_MESSAGE:,} at most")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("this is no JSON; send a request as the documentation shows it") from None


def _checked(values: Any) -> LabRequest:
    try:
        return LabRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}") from None


def _load(explored: ExploredRun) -> None:
    """What the lab needs of a run; what cannot be loaded says so when it is asked for."""
    with suppress(ConvscopeError, OSError):
        if explored.is_evaluated:
            explored.layers  # noqa: B018
