"""The command that serves a folder of ONNX models over HTTP and gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import say
from pfcalib.errors import ConfigError


def serve(
    repository: Annotated[
        Path,
        typer.Argument(
            help="Folder with MODEL/VERSION/MODEL.onnx, its contract and its reference clusters.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than the loopback are open to all.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port; 0 takes any that is free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port; 0 takes any that is free.")] = 8001,
    max_batch: Annotated[
        int, typer.Option(help="Clusters in one run, and so in one request.", min=1)
    ] = 256,
    max_wait_us: Annotated[
        int,
        typer.Option(
            help="Microseconds that a request waits for others of its batch.",
            min=0,
        ),
    ] = 0,
    max_queue: Annotated[int, typer.Option(help="Clusters of a model that wait.", min=1)] = 4096,
    n_threads: Annotated[int, typer.Option(help="Threads of one run.", min=1)] = 1,
    max_mb: Annotated[int, typer.Option(help="Largest request, MB.", min=1)] = 16,
    timeout_s: Annotated[float, typer.Option(help="Seconds from a request to its answer.")] = 10.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Text file with a token that clients must send: Authorization: Bearer TOKEN.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve models as SONIC does: the KServe protocol, version 2, over HTTP and gRPC, for
    tritonclient or any other client; MODEL/service.json sets the batches of one model.

    A model is served, at the start or when a client asks to load it again, only if it passes
    `pfcalib validate`. GET /metrics is for Prometheus. SIGTERM ends it when all is answered.

    Example: pfcalib serve served --http-port 8000 --grpc-port 8001
    """
    from pfcalib.deploy.service.batching import BatchingConfig
    from pfcalib.deploy.service.server import ServiceConfig
    from pfcalib.deploy.service.server import serve as run_service

    config = ServiceConfig(
        folder=repository,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        token=_read_token(token_file) if token_file else None,
        max_bytes=max_mb << 20,
        timeout_s=timeout_s,
        batching=BatchingConfig(
            max_batch=max_batch, max_wait_us=max_wait_us, max_queue=max_queue, n_threads=n_threads
        ),
    )
    asyncio.run(run_service(config, say))


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{path}: expected a token of printable ASCII")
    return token
