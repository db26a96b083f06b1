"""Folder of models and versions, of which only those that pass the validator are served.

A model is a folder `<model>` with a folder for each version, a whole number, in which lies what
`pfcalib.deploy.export` leaves: `<model>.onnx`, its contract and its reference clusters. Names and
answers are those of the KServe protocol, version 2, and of Triton's extensions of it for model
repositories, configurations and statistics.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError as PydanticError

from pfcalib import __version__
from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import contract_path, reference_path
from pfcalib.deploy.examination import examine_apart
from pfcalib.deploy.service.batching import Arrays, Batcher, BatchingConfig
from pfcalib.deploy.service.refusal import Reason, Refusal
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError, PfcalibError, ValidationError

SETTINGS = "service.json"  # of one model, in its folder
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


class _Draft(NamedTuple):
    """A version that has passed; the session is open unless it is served already."""

    digests: tuple[str, ...]  # of the ONNX file, its contract and its reference clusters
    session: onnxruntime.InferenceSession | None


@dataclass(frozen=True)
class Served:
    """A version of a model that answers."""

    model: str
    version: str
    digests: tuple[str, ...]
    batcher: Batcher


class Repository:
    """Models of a folder; made and used in an event loop.

    Parameters
    ----------
    folder : path
    config : BatchingConfig
        For models without settings of their own.
    """

    def __init__(self, folder: Path, config: BatchingConfig) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no folder of models")
        self._folder = folder
        self._config = config
        self._models: dict[str, dict[str, Served]] = {}  # versions rise
        self._problems: dict[str, str] = {}  # of the last attempt to load, by model
        self._lock = asyncio.Lock()
        self._closing = False

    @property
    def ready(self) -> bool:
        """True if something is served and the service is not about to end."""
        return bool(self._models) and not self._closing

    @property
    def served(self) -> Iterator[Served]:
        """All versions of all models."""
        return (version for versions in self._models.values() for version in versions.values())

    def names(self) -> list[str]:
        """Models in the folder, served or not."""
        folders = (path for path in self._folder.iterdir() if path.is_dir())
        return sorted(path.name for path in folders if not path.name.startswith("."))

    def find(self, model: str, version: str = "") -> Served:
        """A version, by default the highest; Refusal if it is not served."""
        versions = self._models.get(model)
        if not versions:
            raise Refusal(Reason.UNKNOWN, f"model {model!r} is not served")
        if version and version not in versions:
            raise Refusal(
                Reason.UNKNOWN,
                f"version {version!r} of {model} is not served; there is {', '.join(versions)}",
            )
        return versions[version or next(reversed(versions))]

    def is_ready(self, model: str, version: str = "") -> bool:
        """True if a version is served and the service is not about to end."""
        versions = self._models.get(model, {})
        return bool(version in versions if version else versions) and not self._closing

    async def infer(self, served: Served, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of a version by name; Refusal if there are none."""
        if self._closing:
            raise Refusal(Reason.CLOSING, "the service is about to end")
        return await served.batcher.run(inputs)

    async def load(self, model: str) -> None:
        """Serve what now lies in the folder of a model, if all of it passes the validator; what
        was served before answers until then, and stays if anything does not pass.

        Raises
        ------
        Refusal
            If there is no such model, or the first problem of a version.
        """
        async with self._lock:
            if self._closing:
                raise Refusal(Reason.CLOSING, "the service is about to end")
            if model not in self.names():
                raise Refusal(Reason.UNKNOWN, f"there is no model {model!r} in the repository")
            old = self._models.get(model, {})
            try:
                config, drafts = await asyncio.to_thread(
                    self._read, self._folder / model, dict(old)
                )
            except (PfcalibError, OSError) as error:
                self._problems[model] = str(error)
                raise Refusal(Reason.INVALID, str(error)) from error
            self._problems.pop(model, None)
            self._models[model] = new = {
                version: old[version]
                if draft.session is None
                else Served(model, version, draft.digests, Batcher(draft.session, config))
                for version, draft in drafts.items()
            }
            for version, served in old.items():
                if new.get(version) is not served:
                    await served.batcher.close()

    async def unload(self, model: str) -> None:
        """No longer serve a model; what waits is answered."""
        async with self._lock:
            self.find(model)
            for served in self._models.pop(model).values():
                await served.batcher.close()

    async def close(self) -> None:
        """Take nothing new and answer what waits."""
        self._closing = True
        async with self._lock:
            for served in list(self.served):
                await served.batcher.close()

    def _read(
        self, folder: Path, old: dict[str, Served]
    ) -> tuple[BatchingConfig, dict[str, _Draft]]:
        """Settings and validated versions of a model; ValidationError names the first that does
        not pass.
        """
        config = self._settings(folder)
        versions = sorted(
            (path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()),
            key=lambda path: int(path.name),
        )
        if not versions:
            raise ValidationError(f"{folder}: no version; expected folders named 1, 2, ...")
        drafts = {}
        for path in versions:
            served = old.get(path.name)
            unchanged = served and served.batcher.config == config
            drafts[path.name] = _validated(
                path / f"{folder.name}.onnx",
                known=served.digests if served and unchanged else None,
                n_threads=config.n_threads,
            )
        return config, drafts

    def _settings(self, folder: Path) -> BatchingConfig:
        path = folder / SETTINGS
        if not path.exists():
            return self._config
        try:
            found = BatchingConfig.model_validate_json(path.read_bytes())
        except PydanticError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(f"{path}: {where}: {first['msg']}") from error
        return self._config.model_copy(update=found.model_dump(exclude_unset=True))

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {"name": "pfcalib", "version": __version__, "extensions": list(EXTENSIONS)}

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """Names, types and shapes of inputs and outputs."""
        served = self.find(model, version)
        inputs, outputs = (
            [
                {"name": name, "datatype": "FP32", "shape": [-1, *shape]}
                for name, shape in shapes.items()
            ]
            for shapes in (served.batcher.signature.shapes, served.batcher.outputs)
        )
        return {
            "name": model,
            "versions": list(self._models[model]),
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }

    def configuration(self, model: str, version: str) -> dict[str, Any]:
        """Shapes, limits and the checksum of the ONNX file."""
        served = self.find(model, version)
        inputs, outputs = (
            [
                {"name": name, "data_type": "TYPE_FP32", "dims": list(shape)}
                for name, shape in shapes.items()
            ]
            for shapes in (served.batcher.signature.shapes, served.batcher.outputs)
        )
        config = served.batcher.config
        return {
            "name": model,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": config.max_batch,
            "input": inputs,
            "output": outputs,
            "dynamic_batching": {"max_queue_delay_microseconds": config.max_wait_us},
            "parameters": {"sha256": {"string_value": served.digests[0]}},
        }

    def statistics(self, model: str, version: str) -> dict[str, Any]:
        """What one model, or each, has done."""
        if not model:
            chosen = list(self.served)
        elif version:
            chosen = [self.find(model, version)]
        else:
            self.find(model)
            chosen = list(self._models[model].values())
        return {"model_stats": [_told(served) for served in chosen]}

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """State of each model in the folder, with what is wrong with it."""
        ready = [
            {"name": served.model, "version": served.version, "state": "READY", "reason": ""}
            for served in self.served
        ]
        if only_ready:
            return ready
        others = {name: "not loaded" for name in self.names() if name not in self._models}
        return ready + [
            {"name": name, "version": "", "state": "UNAVAILABLE", "reason": reason}
            for name, reason in {**others, **self._problems}.items()
        ]


def _validated(path: Path, *, known: tuple[str, ...] | None, n_threads: int) -> _Draft:
    """The version whose ONNX file this is, if it passes. Validated and opened is a copy, so that no
    one can change it between the two.
    """
    with tempfile.TemporaryDirectory(prefix="pfcalib-serve-") as folder:
        draft = Path(folder) / path.name
        for name in (Path, contract_path, reference_path):
            if not name(path).is_file():
                raise ValidationError(f"{name(path)}: no such regular file")
            shutil.copyfile(name(path), name(draft))
        digests = tuple(file_sha256(name(draft)) for name in (Path, contract_path, reference_path))
        if digests == known:
            return _Draft(digests, None)
        found = examine_apart(draft)
        if not found.passed:
            told = "; ".join(found.problems).replace(folder, str(path.parent))
            raise ValidationError(f"{path}: {told}")
        return _Draft(digests, open_session(draft, n_threads=n_threads))


def _told(served: Served) -> dict[str, Any]:
    found = served.batcher.statistics
    return {
        "name": served.model,
        "version": served.version,
        "last_inference": found.last_ms,
        "inference_count": found.n_clusters,
        "execution_count": found.n_runs,
        "inference_stats": {
            "success": {"count": found.n_answered, "ns": found.answered_ns},
            "fail": {"count": found.n_refused, "ns": found.refused_ns},
            "queue": {"count": found.n_answered, "ns": found.queue_ns},
            "compute_infer": {"count": found.n_answered, "ns": found.run_ns},
        },
        "batch_stats": [],
    }
