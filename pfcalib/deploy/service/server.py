"""The service: a repository behind HTTP and gRPC, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from pfcalib.deploy.service.access import Access
from pfcalib.deploy.service.batching import BatchingConfig
from pfcalib.deploy.service.grpc_api import build_handlers
from pfcalib.deploy.service.http_api import HttpApi
from pfcalib.deploy.service.refusal import Refusal
from pfcalib.deploy.service.repository import Repository
from pfcalib.errors import ConfigError

NEEDED = ("grpc", "prometheus_client", "tritonclient")
GRACE_S = 5.0  # for answers on their way when the service ends


@dataclass(frozen=True)
class ServiceConfig:
    """What is served, where, and within which limits."""

    folder: Path
    host: str = "127.0.0.1"
    http_port: int = 8000  # 0: any that is free
    grpc_port: int = 8001
    token: str | None = None
    max_bytes: int = 16 << 20  # of a request
    max_open: int = 256  # requests at once
    timeout_s: float = 10.0  # of a request
    batching: BatchingConfig = field(default_factory=BatchingConfig)


async def serve(config: ServiceConfig, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then what waits is answered and all else refused.

    Parameters
    ----------
    config : ServiceConfig
    tell : callable
        Is given lines on what is served, where, and on models that are not.

    Raises
    ------
    ConfigError
        If a package is missing, no model can be served, or a port is taken.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is missing: pip install 'pfcalib[serve]'")
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    repository = Repository(config.folder, config.batching)
    for name in repository.names():
        try:
            await repository.load(name)
        except Refusal as refusal:
            tell(f"{name} is not served: {refusal}")
    if not repository.ready:
        raise ConfigError(f"{config.folder}: no model can be served")
    access = Access(token=config.token, timeout_s=config.timeout_s, max_open=config.max_open)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(repository.close)
        http_port = await _start_http(stack, repository, access, config)
        grpc_port = await _start_grpc(stack, repository, access, config)
        names = ", ".join(f"{served.model} {served.version}" for served in repository.served)
        tell(f"serving {names} on http://{config.host}:{http_port}, grpc {config.host}:{grpc_port}")
        await ended.wait()
        tell("ending: what waits is answered")
        await repository.close()


async def _start_http(
    stack: contextlib.AsyncExitStack, repository: Repository, access: Access, config: ServiceConfig
) -> int:
    app = HttpApi(repository, access, max_bytes=config.max_bytes).app
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, config.host, config.http_port).start()
    except OSError as error:
        raise ConfigError(f"{config.host}:{config.http_port}: {error.strerror}") from error
    return int(runner.addresses[0][1])


async def _start_grpc(
    stack: contextlib.AsyncExitStack, repository: Repository, access: Access, config: ServiceConfig
) -> int:
    import grpc

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", config.max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two services would share a port
        ]
    )
    server.add_generic_rpc_handlers((build_handlers(repository, access),))
    address = f"{config.host}:{config.grpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"{address}: {error}") from error
    await server.start()
    stack.push_async_callback(server.stop, GRACE_S)
    return int(port)
