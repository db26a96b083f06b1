"""Requests of one model joined to batches: a queue, a thread that runs what waits in it at once,
and answers split again.

While a batch runs, the next one gathers (dynamic batching, as in the servers that CMS and ATLAS put
networks on: arXiv:2007.14781, arXiv:2402.15366).
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pfcalib.deploy.service.refusal import Reason, Refusal

Arrays = Mapping[str, NDArray[np.float32]]
Shapes = tuple[tuple[int, ...], ...]


class BatchingConfig(BaseModel):
    """How requests of a model are joined; stored as `service.json` in the folder of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: int = Field(default=256, gt=0)  # clusters in one run, also of one request
    max_wait_us: int = Field(default=0, ge=0)  # of the first request of a batch for others
    max_queue: int = Field(default=4096, gt=0)  # clusters that wait
    n_threads: int = Field(default=1, gt=0)  # of a run
    # inputs that are lists along their first axis, with zeros behind the last, so that shorter ones
    # may be sent
    padded: tuple[str, ...] = ("points",)


class Signature:
    """Inputs of a model: names, and shapes without the batch axis, -1 where an axis is free."""

    def __init__(self, session: onnxruntime.InferenceSession, padded: Sequence[str]) -> None:
        self.shapes = {
            node.name: tuple(axis if isinstance(axis, int) else -1 for axis in node.shape[1:])
            for node in session.get_inputs()
        }
        self._padded = padded

    def require(self, inputs: Arrays) -> tuple[int, Shapes]:
        """Number of clusters, and shapes of the inputs in a run.

        Raises
        ------
        Refusal
            If a name, type or shape is not the model's, or the inputs have no or different numbers
            of clusters.
        """
        if inputs.keys() != self.shapes.keys():
            raise Refusal(
                Reason.INVALID,
                f"inputs {', '.join(sorted(inputs))}: the model asks for "
                f"{', '.join(sorted(self.shapes))}",
            )
        shapes = tuple(self._shape(name, inputs[name]) for name in self.shapes)
        lengths = {len(array) for array in inputs.values()}
        if len(lengths) != 1 or lengths == {0}:
            raise Refusal(
                Reason.INVALID,
                f"inputs have {sorted(lengths)} clusters: expected one number above 0",
            )
        return lengths.pop(), shapes

    def _shape(self, name: str, array: NDArray[np.float32]) -> tuple[int, ...]:
        wanted, found = self.shapes[name], array.shape[1:]
        may_be_short = name in self._padded
        fits = array.ndim == len(wanted) + 1 and all(
            have > 0 and (have == want or want < 0 or (may_be_short and i == 0 and have < want))
            for i, (have, want) in enumerate(zip(found, wanted, strict=True))
        )
        if not fits or array.dtype != np.float32:
            told = ", ".join("any" if axis < 0 else str(axis) for axis in wanted)
            less = ", or less on the second axis" if may_be_short else ""
            raise Refusal(
                Reason.INVALID,
                f"input {name} is {array.dtype} {array.shape}, expected float32 (n, {told}){less}",
            )
        return tuple(have if want < 0 else want for have, want in zip(found, wanted, strict=True))

    def join(self, parts: Sequence[Arrays], shapes: Shapes) -> Arrays:
        """One batch of several inputs of the same shapes, with zeros behind shorter lists."""
        return {
            name: _join([part[name] for part in parts], shape)
            for name, shape in zip(self.shapes, shapes, strict=True)
        }


def _join(arrays: list[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if len(arrays) == 1 and arrays[0].shape[1:] == shape:
        return np.require(arrays[0], requirements=["C", "A"])
    joined = np.zeros((sum(map(len, arrays)), *shape), dtype=np.float32)
    start = 0
    for array in arrays:
        rows = joined[start : start + len(array)]
        (rows[:, : array.shape[1]] if shape else rows)[:] = array
        start += len(array)
    return joined


@dataclass
class Statistics:
    """What a model has done since it was loaded; durations in nanoseconds."""

    n_answered: int = 0  # requests
    n_refused: int = 0
    n_clusters: int = 0  # that were run
    n_runs: int = 0
    answered_ns: int = 0  # from arrival to answer
    refused_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    last_ms: int = 0  # since 1970


@dataclass(eq=False)
class _Request:
    inputs: Arrays
    n_clusters: int
    shapes: Shapes
    answer: asyncio.Future[list[NDArray[Any]]]
    arrival_ns: int


class Batcher:
    """Queue and thread of one model; made and used in an event loop.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Float inputs and outputs; the first axis of each counts clusters and is free.
    config : BatchingConfig
    """

    def __init__(self, session: onnxruntime.InferenceSession, config: BatchingConfig) -> None:
        self.config = config
        self.signature = Signature(session, config.padded)
        self.outputs = {
            node.name: tuple(axis if isinstance(axis, int) else -1 for axis in node.shape[1:])
            for node in session.get_outputs()
        }
        self.statistics = Statistics()
        self.n_waiting = 0  # clusters
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[_Request] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs for some clusters, by name; a call that is cancelled in time is not run.

        Raises
        ------
        Refusal
            If the inputs are not the model's, are more clusters than a batch, the queue is full or
            closed, or ONNX Runtime fails.
        """
        arrival = time.perf_counter_ns()
        try:
            outputs = await self._enter(inputs, arrival)
        except BaseException:
            self.statistics.n_refused += 1
            self.statistics.refused_ns += time.perf_counter_ns() - arrival
            raise
        self.statistics.n_answered += 1
        self.statistics.answered_ns += time.perf_counter_ns() - arrival
        return dict(zip(self.outputs, outputs, strict=True))

    def _enter(self, inputs: Arrays, arrival: int) -> asyncio.Future[list[NDArray[Any]]]:
        n_clusters, shapes = self.signature.require(inputs)
        if n_clusters > self.config.max_batch:
            raise Refusal(
                Reason.INVALID,
                f"a request of {n_clusters} clusters: at most {self.config.max_batch} are allowed",
            )
        request = _Request(inputs, n_clusters, shapes, self._loop.create_future(), arrival)
        with self._changed:
            if self._closed:
                raise Refusal(Reason.CLOSING, "the model is being unloaded")
            if self.n_waiting and self.n_waiting + n_clusters > self.config.max_queue:
                raise Refusal(
                    Reason.OVERLOADED, f"{self.n_waiting} clusters wait already: try again later"
                )
            self._queue.append(request)
            self.n_waiting += n_clusters
            # the thread need not wake up for those between
            if len(self._queue) == 1 or self.n_waiting >= self.config.max_batch:
                self._changed.notify()
        return request.answer

    async def close(self) -> None:
        """Answer what waits, take nothing new, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._next():
            start = time.perf_counter_ns()
            try:
                feed = self.signature.join([request.inputs for request in batch], batch[0].shapes)
                outputs, refusal = self._session.run(None, feed), None
            except Exception as error:  # those of ONNX Runtime have no common base but this
                text = str(error).splitlines()[0]
                outputs, refusal = [], Refusal(Reason.FAILED, f"ONNX Runtime fails: {text}")
            run_ns = time.perf_counter_ns() - start
            self._loop.call_soon_threadsafe(self._deliver, batch, outputs, refusal, start, run_ns)

    def _next(self) -> list[_Request]:
        """Next batch; none if the queue is empty and closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return []
                due = self._queue[0].arrival_ns + 1000 * self.config.max_wait_us
                while self.n_waiting < self.config.max_batch and not self._closed:
                    left = due - time.perf_counter_ns()
                    if left <= 0:
                        break
                    self._changed.wait(left / 1e9)
                if batch := self._take():
                    return batch

    def _take(self) -> list[_Request]:
        """Oldest request and those of its shapes that fit into a batch with it."""
        batch: list[_Request] = []
        others: list[_Request] = []
        room = self.config.max_batch
        while self._queue and self._queue[0].n_clusters <= room:
            request = self._queue.popleft()
            if batch and request.shapes != batch[0].shapes:
                others.append(request)
                continue
            self.n_waiting -= request.n_clusters
            if not request.answer.done():  # nobody waits for it any more
                batch.append(request)
                room -= request.n_clusters
        self._queue.extendleft(reversed(others))
        return batch

    def _deliver(
        self,
        batch: list[_Request],
        outputs: list[NDArray[Any]],
        refusal: Refusal | None,
        start_ns: int,
        run_ns: int,
    ) -> None:
        self.statistics.n_runs += 1
        self.statistics.n_clusters += sum(request.n_clusters for request in batch)
        self.statistics.run_ns += run_ns
        self.statistics.last_ms = time.time_ns() // 1_000_000
        start = 0
        for request in batch:
            stop = start + request.n_clusters
            self.statistics.queue_ns += start_ns - request.arrival_ns
            if not request.answer.done():
                if refusal is not None:
                    request.answer.set_exception(refusal)
                else:
                    request.answer.set_result([output[start:stop] for output in outputs])
            start = stop
