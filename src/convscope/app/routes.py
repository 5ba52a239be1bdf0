"""The routes of the explorer beside its pages: the lab and its socket, the map, the review, images, and all analyses."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from torch import Tensor

from convscope.analyses import Analysis, find, names, request_of, small_picture
from convscope.app import pages
from convscope.app.explored import ExploredRun, UnitsOff
from convscope.app.explorer import Explorer
from convscope.app.lab import LIVE_LENSES, LabRequest
from convscope.app.questions import analysis
from convscope.app.state import is_number, units_off
from convscope.data import read_image
from convscope.draw import Picture, enlarge_to, picture, png
from convscope.errors import ConvscopeError, RequestError, first_line
from convscope.runs import Verdict, read_review, remove_verdict, write_verdict
from convscope.scans import Nearest, Projection, reviewed_accuracy, write_embeddings

_LOG = logging.getLogger("uvicorn.error")
_LARGEST_MESSAGE = 1 << 18  # 200 edits with long strokes
_SLOW_CLIENT_S = 30
_TURN_S = 0.002  # of one person's answer, before the thread of the network goes on with another's


def add_lab(app: FastAPI, explorer: Explorer) -> None:
    @app.websocket("/lab/socket")
    async def lab(socket: WebSocket) -> None:
        await socket.accept()
        newest: list[LabRequest] = []
        came = asyncio.Event()
        answering = asyncio.create_task(_answer(explorer, socket, newest, came))
        try:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                try:
                    request = checked_request(as_json(message.get("text") or ""))
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
        parts, goes_on = _parts(explorer, newest[0], came.is_set), True
        try:
            while goes_on:
                chunk, goes_on = await explorer.by_network(_turn, parts)
                async with asyncio.timeout(_SLOW_CLIENT_S):
                    for part in chunk:
                        await (socket.send_bytes(part) if isinstance(part, bytes) else socket.send_json(part))
        except TimeoutError:
            await socket.close(1008)
            return


def _parts(
    explorer: Explorer, request: LabRequest, is_superseded: Callable[[], bool]
) -> Iterator[dict[str, Any] | bytes]:
    """The parts of an answer; what goes wrong is the last of them."""
    try:
        yield from explorer.lab(request.run).answer(request, explorer.uploaded(request.run), is_superseded)
    except ConvscopeError as error:
        yield {"seq": request.seq, "error": str(error)}
    except Exception as error:  # the socket goes on
        _LOG.exception("the lab could not answer")
        yield {"seq": request.seq, "error": unforeseen_in_words(error)}


def _turn(parts: Iterator[Any]) -> tuple[list[Any], bool]:
    """The next parts of an answer, as many as a turn has time for, and whether there may be more."""
    chunk, end = [], time.perf_counter() + _TURN_S
    for part in parts:
        chunk.append(part)
        if time.perf_counter() > end:
            return chunk, True
    return chunk, False


def as_json(text: str) -> Any:
    if len(text) > _LARGEST_MESSAGE:
        raise RequestError(f"this has {len(text):,} characters; send {_LARGEST_MESSAGE:,} at most")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("this is no JSON; send a request as the documentation shows it") from None


def checked_request(values: Any) -> LabRequest:
    try:
        return LabRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}") from None


def unforeseen_in_words(error: Exception) -> str:
    return f"this failed, which is a fault of convscope: {type(error).__name__}: {first_line(error)}"


_OF_ROUTE = ("run", "image", "edit")  # which an analysis may have as a setting, too


def add_map(app: FastAPI, explorer: Explorer) -> None:
    async def projection(run: int, layer: str, method: str) -> Projection:
        checked_layer, checked_method = await explorer.by_page(pages.projection_of, explorer.runs[run], layer, method)
        words = f"{pages.METHODS[checked_method]} of {layer or 'the features'}"
        return await explorer.answer(
            explorer.runs[run], "projection", words, layer=checked_layer, method=checked_method
        )

    @app.get("/api/projection")
    async def points(run: int = 0, layer: str = "", method: str = "pca") -> Response:
        """The test images as points of a plane, by their features at a layer, by default the last before the logits."""
        projected = await projection(run, layer, method)
        return JSONResponse(await explorer.by_page(points_of, explorer.runs[run], projected))

    @app.post("/api/embeddings")
    async def write(run: int = 0, layer: str = "", method: str = "pca") -> Response:
        """Writes these points, with each image's nearest others, to the run's folder for other viewers."""
        projected, explored = await projection(run, layer, method), explorer.runs[run]
        path = await explorer.by_page(write_embeddings, explored.run, explored.test, projected)
        return JSONResponse({"file": str(path)})


def points_of(explored: ExploredRun, found: Projection) -> dict[str, Any]:
    """The points of a map with what is known of each."""
    answers, index = explored.subject.answers[0], found.index
    rows = index.tolist()
    return {
        "layer": found.layer, "method": found.method, "kept": found.kept, "neighbours": found.neighbours.shape[1],
        "classes": answers.head.classes, "row": rows, "name": [explored.test.name(row) for row in rows],
        "x": found.points[:, 0].tolist(), "y": found.points[:, 1].tolist(),
        "class": answers.true[index].tolist(), "predicted": answers.predicted[index].tolist(),
        "confidence": [round(value, 4) for value in answers.confidence[index].tolist()],
    }  # fmt: skip


def add_review(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/api/nearest")
    async def nearest(image: int, run: int = 0) -> Response:
        """The training images that are nearest to a test image."""
        explored = explorer.runs[run]
        await explorer.by_page(explored.image, image)  # says at once that there is none
        answer = await explorer.answer(explored, "nearest", f"the training images nearest to image {image}", row=image)
        return JSONResponse(nearest_of(explored, answer)[0])

    @app.get("/api/review")
    async def read(run: int = 0) -> Response:
        """What was judged of the mistakes, and the accuracy without doubtful labels."""
        return JSONResponse(await explorer.by_page(review_of, explorer.runs[run]))

    @app.post("/api/review")
    async def judge(judgement: Judgement, run: int = 0) -> Response:
        """Writes, or takes back, what was judged of an image."""
        return JSONResponse(await explorer.by_page(_judge, explorer.runs[run], judgement))


def nearest_of(explored: ExploredRun, found: Nearest) -> list[dict[str, Any]]:
    """For each image the training images that are nearest to it."""
    classes, targets = explored.data.train.classes["class"], explored.data.train.targets_of("class")
    return [
        {"nearest": [
            {"row": k, "class": classes[targets[k]], "similarity": round(value, 3)}
            for k, value in zip(index, similarity, strict=True)
        ]}
        for index, similarity in zip(found.index.tolist(), found.similarity.tolist(), strict=True)
    ]  # fmt: skip


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
    return review_of(explored)


def review_of(explored: ExploredRun) -> dict[str, Any]:
    """What was judged, and the accuracy without doubtful labels."""
    rows, accuracy = read_review(explored.run), reviewed_accuracy(explored.run)
    left_out = accuracy.n_wrong_labels + accuracy.n_ambiguous
    return {
        "verdicts": dict(zip(map(str, rows["image"].tolist()), rows["verdict"].tolist(), strict=True)),
        "all": accuracy.all_images.to_json(), "without": accuracy.without_doubtful.to_json() if left_out else None,
        "left_out": left_out,
    }  # fmt: skip


def add_images(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/images/{row}.png")
    async def image(
        request: Request, row: int, run: int = 0, side: int = 0, box: str = "", split: str = "test"
    ) -> Response:
        """An image of the run's data, enlarged by repetition as far as its longer side is within `side` px.

        Of its part in `box`, where that is given: top,left,bottom,right.
        """
        explored = explorer.runs[run]
        data = await explorer.by_page(lambda: explored.data)
        headers = {
            "etag": f'"{data.digest[:16]}"',
            "cache-control": "private, no-cache",
        }  # run 0 is another one tomorrow
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        content = await explorer.by_page(explored.png, split, row, side, box)
        return Response(content, media_type="image/png", headers=headers)

    @app.get("/attribution/{row}.png")
    async def attribution(row: int, run: int = 0, lens: str = "grad_cam", off: str = "") -> Response:
        """The attribution of a test image for the predicted class, over the image."""
        explored = explorer.runs[run]
        if lens not in LIVE_LENSES:
            raise RequestError(f"lens={lens}: expected one of {', '.join(LIVE_LENSES)}")
        shown = await explorer.by_network(attribution_of, explored, row, lens, units_off(off))
        return Response(png(shown), media_type="image/png")

    @app.post("/uploads")
    async def upload(request: Request, run: int = 0) -> Response:
        """An image file as the body; the answer has the name by which the lab knows it."""
        content = await request.body()
        opened_run = explorer.runs[run].run
        await explorer.by_page(read_image, content, opened_run.input_shape, opened_run.bits)  # refuses what is no image
        return JSONResponse({"image": explorer.keep(content)})

    @app.get("/uploads/{name}.png")
    async def uploaded(name: str, run: int = 0) -> Response:
        """An uploaded image as the network sees it."""
        image = await explorer.by_page(explorer.uploaded(run), name)
        return Response(png(picture(image)), media_type="image/png", headers={"cache-control": "no-store"})


def attribution_of(explored: ExploredRun, row: int, lens: str, off: UnitsOff) -> Picture:
    """The attribution of a test image for the predicted class, over the image."""
    image = explored.image(row)
    return enlarge_to(small_picture(explored.scope_without(off).attribute(lens, image), image), 192)


def add_analyses(app: FastAPI, explorer: Explorer) -> None:
    """Each analysis of the catalogue as a route of its own, with the settings of its request."""
    for entry in map(find, names()):
        for ending in ("", ".png", ".safetensors"):
            _add_analysis(app, explorer, entry, ending)


def _add_analysis(app: FastAPI, explorer: Explorer, entry: Analysis, ending: str) -> None:
    name, own = entry.name, entry.request.model_fields
    parameters = [
        {"name": key, "in": "query", "required": field.is_required(), "schema": {"type": "string"},
         "description": field.description or ""}
        for key, field in own.items()
    ]  # fmt: skip

    @app.get(
        f"/api/analyses/{name}{ending}", name=f"{name}{ending}", summary=entry.about,
        openapi_extra={"parameters": parameters},
    )  # fmt: skip
    async def ask(request: Request, run: int = 0, image: str = "", edit: str = "[]") -> Response:
        settings = {key: value for key, value in request.query_params.items() if key in own or key not in _OF_ROUTE}
        explored = explorer.runs[run]
        pixels = await explorer.by_network(_image_for, explorer, run, entry, image, edit, settings)
        if name in LIVE_LENSES:
            result = await explorer.by_network(partial(analysis, explored, name, pixels, settings))
        else:
            result = await explorer.answer(explored, "analysis", name, name=name, image=pixels, settings=settings)
        return _as_response(result, ending)


def _image_for(
    explorer: Explorer, run: int, entry: Analysis, image: str, edit_list: str, settings: dict[str, Any]
) -> Tensor | None:
    """The image of a request; what is wrong with the request is said here, before it waits for earlier ones."""
    pixels = None
    if entry.reads == "image" and image:
        number = int(image) if is_number(image) else image
        state = {"run": run, "image": number, "edits": as_json(edit_list)}
        pixels = explorer.lab(run).image(checked_request(state), explorer.uploaded(run))
    request_of(entry, settings, pixels, explorer.runs[run].test)
    return pixels


def _as_response(result: dict[str, Any], ending: str) -> Response:
    if ending == ".png":
        return Response(result["png"], media_type="image/png")
    if ending == ".safetensors":
        from safetensors.torch import save

        return Response(save(result["tensors"]), media_type="application/octet-stream")
    shapes = {key: list(tensor.shape) for key, tensor in result["tensors"].items()}
    rows = None if result["table"] is None else json.loads(result["table"])
    return JSONResponse(
        {key: result[key] for key in ("heading", "note", "remark")} | {"table": rows, "tensors": shapes}
    )
