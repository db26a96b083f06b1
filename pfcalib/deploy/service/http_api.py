"""The KServe protocol, version 2, over HTTP, and the metrics for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from pfcalib.deploy.service import monitor
from pfcalib.deploy.service.access import Access
from pfcalib.deploy.service.refusal import Reason, Refusal
from pfcalib.deploy.service.repository import Repository
from pfcalib.deploy.service.tensors import LENGTH, compose_answer, parse_request, require_outputs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPEN = ("/v2/health/live", "/v2/health/ready")  # without a token
MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


class HttpApi:
    """Endpoints of a repository.

    Parameters
    ----------
    repository : Repository
    access : Access
    max_bytes : int
        Largest body of a request.
    """

    def __init__(self, repository: Repository, access: Access, *, max_bytes: int) -> None:
        self._repository = repository
        self._access = access
        self.app = web.Application(client_max_size=max_bytes, middlewares=[self._guard])
        for path in MODEL:  # addresses are tried in this order
            self.app.router.add_post(f"{path}/infer", self._infer)
        for path, handler in {
            "/v2": self._told(lambda _: repository.server_metadata()),
            "/v2/health/live": self._state(lambda _: True),
            "/v2/health/ready": self._state(lambda _: repository.ready),
            "/v2/models/stats": self._told(lambda _: repository.statistics("", "")),
            "/metrics": self._metrics,
        }.items():
            self.app.router.add_get(path, handler)
        for path in MODEL:
            add = self.app.router.add_get
            add(path, self._told(lambda of: repository.metadata(*_named(of))))
            add(f"{path}/config", self._told(lambda of: repository.configuration(*_named(of))))
            add(f"{path}/stats", self._told(lambda of: repository.statistics(*_named(of))))
            add(f"{path}/ready", self._state(lambda of: repository.is_ready(*_named(of))))
        self.app.router.add_post("/v2/repository/index", self._index)
        self.app.router.add_post("/v2/repository/models/{model}/load", self._load)
        self.app.router.add_post("/v2/repository/models/{model}/unload", self._unload)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Token, limits, and errors as the JSON that the protocol asks for."""
        try:
            if request.path not in OPEN:
                self._access.require(request.headers.get("Authorization"))
            return await handler(request)
        except Refusal as refusal:
            return _refused(refusal.reason.value[0], str(refusal))
        except web.HTTPException as error:
            return _refused(error.status, error.text or error.reason)

    async def _infer(self, request: web.Request) -> web.Response:
        async with self._access.limited() as clock:
            body = await request.read()
            length = request.headers.get(LENGTH)
            if length is not None and not length.isdecimal():
                raise Refusal(Reason.INVALID, f"{LENGTH} is {length!r}, expected a whole number")
            asked, inputs = parse_request(body, None if length is None else int(length))
            # a model that is found after all else has come cannot be unloaded meanwhile
            served = self._repository.find(*_named(request))
            require_outputs([output.name for output in asked.outputs], served.batcher.outputs)
            clock.shorten(asked.parameters.get("timeout"))
            outputs = await self._repository.infer(served, inputs)
        told = {
            "model_name": served.model,
            "model_version": served.version,
            "parameters": {"sha256": served.digests[0]},
        }
        body, json_length = compose_answer(asked, told, outputs)
        if json_length is None:
            return web.Response(body=body, content_type="application/json")
        return web.Response(
            body=body, headers={LENGTH: str(json_length)}, content_type="application/octet-stream"
        )

    async def _index(self, request: web.Request) -> web.Response:
        only_ready = bool((await _json(request)).get("ready", False))
        return web.json_response(self._repository.index(only_ready=only_ready))

    async def _load(self, request: web.Request) -> web.Response:
        if parameters := (await _json(request)).get("parameters"):
            raise Refusal(
                Reason.INVALID,
                f"models are loaded as they lie there, without {', '.join(parameters)}",
            )
        await self._repository.load(request.match_info["model"])
        return web.json_response({})

    async def _unload(self, request: web.Request) -> web.Response:
        await self._repository.unload(request.match_info["model"])
        return web.json_response({})

    async def _metrics(self, _: web.Request) -> web.Response:
        text, kind = monitor.exposition(self._repository)
        return web.Response(body=text, headers={"Content-Type": kind})

    @staticmethod
    def _told(tell: Callable[[web.Request], Any]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response(tell(request))

        return handler

    @staticmethod
    def _state(holds: Callable[[web.Request], bool]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=200 if holds(request) else 400)

        return handler


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["model"], request.match_info.get("version", "")


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise Refusal(Reason.INVALID, f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refusal(Reason.INVALID, "the body is no JSON object")
    return found


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
