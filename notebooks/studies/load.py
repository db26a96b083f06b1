"""A service under load: clients that check each answer, all on 127.0.0.1, for a time that is given.

Clients that count requests are coroutines of one thread; workers that read clusters, make images of
them and ask a network are processes.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import multiprocessing
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from pfcalib.deploy.client import LocalModel, RemoteModel
from pfcalib.features.images import build_images
from pfcalib.features.inputs import build_inputs
from pfcalib.samples.read import iterate_sample

Inputs = Mapping[str, NDArray[np.float32]]
TOLERANCE = 1e-5  # of an answer; batches of other sizes are summed in another order
COLUMNS = ("clusterE", "clusterEta", "clusterPhi", "cluster_cell_ID", "cluster_cell_E")


class Service(NamedTuple):
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    http: str  # addresses, host:port
    grpc: str


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(folder: Path, *options: object, http: int = 0, grpc: int = 0) -> Service:
    """`pfcalib serve`, once it serves."""
    ports = ("--http-port", http, "--grpc-port", grpc)
    command = [sys.executable, "-m", "pfcalib", "serve", folder, *ports, *options]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"serving .* on http://(\S+), grpc (\S+)", line):
            return Service(process, *found.groups())
    raise RuntimeError(f"{folder}: the service ended, exit code {process.wait()}")


@contextlib.contextmanager
def running(folder: Path, *options: object) -> Iterator[Service]:
    """A service for the time of a block."""
    service = start(folder, *options)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.communicate()


def copy_version(source: Path, folder: Path, name: str, version: int) -> Path:
    """A model as version of another name in a folder of models; the ONNX file."""
    target = folder / name / str(version)
    target.mkdir(parents=True)
    for file in source.parent.glob(f"{source.stem}.*"):
        if file.name.removeprefix(source.stem) in (".onnx", ".json", ".reference.npz"):
            shutil.copy(file, target / f"{name}{file.name.removeprefix(source.stem)}")
    return target / f"{name}.onnx"


@dataclass
class Load:
    """What clients met."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)  # of answers, seconds
    refusals: list[float] = field(default_factory=list)  # seconds until they were told
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    n_wrong: int = 0
    which: collections.Counter[int] = field(default_factory=collections.Counter)  # of expected

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds

    def check(self, answer: NDArray[np.float32], expected: Sequence[NDArray[np.float32]]) -> None:
        """Count an answer as one of those that are right, or as wrong."""
        near = [i for i, one in enumerate(expected) if np.abs(answer - one).max() < TOLERANCE]
        self.n_wrong += not near
        self.which.update(near[:1])


def put_load(
    service: Service, model: str, inputs: Inputs, expected: Sequence[NDArray[np.float32]], *,
    n_clients: int, seconds: float, size: int = 1, meanwhile: Callable[[], object] | None = None,
) -> Load:  # fmt: skip
    """Clients over gRPC, each of which asks for some clusters after the other.

    Parameters
    ----------
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
    expected : sequence of float32 array, shape (n_clusters, ...)
        Outputs of which an answer must be one.
    size : int
        Clusters of a request.
    meanwhile : callable, optional
        Done in another thread after a third of the time; the load ends a third after it, if that is
        later.
    """
    load = Load()

    def interfere() -> None:
        assert meanwhile is not None
        meanwhile()
        time.sleep(seconds / 3)

    other = threading.Timer(seconds / 3, interfere) if meanwhile else None

    async def ask(client: aio.InferenceServerClient, number: int, ends: float) -> None:
        n = len(expected[0])
        for first in itertools.cycle(range(number * size % n, n - size + 1, size)):
            if time.perf_counter() > ends and not (other and other.is_alive()):
                return
            rows = slice(first, first + size)
            tensors = to_tensors({name: array[rows] for name, array in inputs.items()})
            began = time.perf_counter()
            try:
                answer = await client.infer(model, tensors)
            except InferenceServerException as error:
                load.refusals.append(time.perf_counter() - began)
                load.reasons[str(error.status())] += 1
                continue
            load.times.append(time.perf_counter() - began)
            name = answer.get_response().outputs[0].name
            load.check(answer.as_numpy(name), [one[rows] for one in expected])

    async def all_of_them() -> None:
        began = time.perf_counter()
        async with aio.InferenceServerClient(service.grpc) as client:
            await asyncio.gather(*(ask(client, i, began + seconds) for i in range(n_clients)))
        load.seconds = time.perf_counter() - began

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()))  # a kernel has its loop
    for each in filter(None, (other, thread)):
        each.start()
    for each in filter(None, (other, thread)):
        each.join()
    return load


def to_tensors(inputs: Inputs, library: Any = triton) -> list[Any]:
    """Clusters as a client of Triton sends them, over gRPC or HTTP."""
    tensors = []
    for name, array in inputs.items():
        tensors.append(library.InferInput(name, list(array.shape), "FP32"))
        tensors[-1].set_data_from_numpy(np.ascontiguousarray(array))
    return tensors


def call_times(call: Callable[[], object], n_calls: int) -> NDArray[np.float64]:
    """Times of calls, microseconds; the first tenth is left out."""
    times = []
    for _ in range(n_calls + n_calls // 10 + 1):
        began = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - began))
    return np.array(times[n_calls // 10 + 1 :])


class Kills(NamedTuple):
    """What clients with a file to fall back on met while a service was killed again and again."""

    n_kills: int
    n_answers: int
    n_remote: int
    n_wrong: int
    n_lost: int  # calls without an answer
    reasons: dict[str, int]  # of local answers
    slowest: float  # longest time of a call, seconds
    seconds: float


def kill_again(
    folder: Path, model: str, path: Path, inputs: Inputs, *, n_kills: int, n_clients: int
) -> Kills:
    """Kill a service under load and start it again at the same ports.

    Parameters
    ----------
    folder : path
        Models that are served.
    model : str
    path : path
        File of the model, which clients fall back on.
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        Of each request.
    """
    ports = {"http": free_port(), "grpc": free_port()}
    expected = LocalModel(path).predict(inputs)
    ended, slowest = threading.Event(), [0.0]
    load, n_lost, lock = Load(), [0], threading.Lock()
    clients = [
        RemoteModel(f"{protocol}://127.0.0.1:{ports[protocol]}/{model}", fallback=path, pause_s=0.2)
        for protocol in (("http", "grpc") * n_clients)[:n_clients]
    ]

    def work(client: RemoteModel) -> None:
        while not ended.is_set():
            began = time.perf_counter()
            try:
                answer = client.predict(inputs)
            except Exception:  # whatever it is, an answer is lost
                n_lost[0] += 1
                continue
            with lock:
                load.check(answer, [expected])
                slowest[0] = max(slowest[0], time.perf_counter() - began)
            time.sleep(0.002)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    began = time.perf_counter()
    service = start(folder, **ports)
    for thread in threads:
        thread.start()
    try:
        for _ in range(n_kills):
            time.sleep(0.5)
            service.process.kill()
            service.process.communicate()
            service = start(folder, **ports)
        time.sleep(1.0)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        service.process.kill()
        service.process.communicate()
    reasons = sum((client.fallbacks for client in clients), collections.Counter())
    return Kills(
        n_kills,
        sum(load.which.values()) + load.n_wrong,
        sum(client.n_remote for client in clients),
        load.n_wrong,
        n_lost[0],
        dict(reasons),
        slowest[0],
        time.perf_counter() - began,
    )


def work_on_events(
    sample: Path, first: int, n_events: int, size: int, path: Path, address: str | None
) -> tuple[float, float]:
    """One worker: read the clusters of each event, make flat images and ask the network, of a file
    or of a service; seconds of all and of the network.
    """
    model = RemoteModel(address, timeout_s=30.0) if address else LocalModel(path)
    began, asked = time.perf_counter(), 0.0
    events = iterate_sample(
        sample, step=size, columns=COLUMNS, entry_start=first, entry_stop=first + n_events * size
    )
    for event in events:
        inputs = build_inputs(build_images(event), "flat")
        start_of_call = time.perf_counter()
        model.predict(inputs)
        asked += time.perf_counter() - start_of_call
    return time.perf_counter() - began, asked


def events_per_second(
    sample: Path, path: Path, address: str | None, *, n_workers: int, n_events: int, size: int
) -> tuple[float, float]:
    """Events that workers get through in a second, and the share of their time that the network
    takes.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context) as pool:
        for n in (2, n_events):  # the first time compiles and loads
            jobs = [
                pool.submit(work_on_events, sample, i * n * size, n, size, path, address)
                for i in range(n_workers)
            ]
            done = [job.result() for job in jobs]
    slowest = max(seconds for seconds, _ in done)
    asked, whole = np.sum([asked for _, asked in done]), np.sum([whole for whole, _ in done])
    return n_workers * n_events / slowest, float(asked / whole)
