"""Answers of a network, from an ONNX file in this process or from a service, with the same call.

A service may be busy, restarted or out of reach; an application that has the file at hand then goes
on without it (as with the fall-back of SONIC, arXiv:2402.15366).
"""

from __future__ import annotations

import collections
import http.client
import importlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import file_sha256
from pfcalib.deploy.service.batching import Arrays, BatchingConfig, Signature
from pfcalib.deploy.service.refusal import Reason, Refusal
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ConfigError, ValidationError

# answers after which a local file is asked, of HTTP and of gRPC
NO_ANSWER = {
    *("503", "504", "StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED"),
    *("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"),
}


class LocalModel:
    """An ONNX file, run on one thread of this process.

    Parameters
    ----------
    path : path
    batch : int
        Clusters in one run.
    """

    def __init__(self, path: str | Path, *, batch: int = 256) -> None:
        self.path = Path(path)
        self.sha256 = file_sha256(self.path)
        self._batch = batch
        self._session = open_session(self.path)
        self._signature = Signature(self._session, BatchingConfig().padded)

    def predict(self, inputs: Arrays) -> NDArray[np.float32]:
        """Output for some clusters.

        Parameters
        ----------
        inputs : mapping of str to float32 array, shape (n_clusters, ...)
            By name. Lists of points may be shorter than the model's.

        Returns
        -------
        array of float32, shape (n_clusters, ...)

        Raises
        ------
        Refusal
            If the inputs are not those of the model.
        """
        _, shapes = self._signature.require(inputs)
        return run_in_batches(self._session, self._signature.join([inputs], shapes), self._batch)


class RemoteModel:
    """A model of a service that speaks the KServe protocol, version 2, such as `pfcalib serve` or
    Triton. For one thread only.

    Parameters
    ----------
    address : str
        `http://host:port/model`, `grpc://host:port/model`, or with `/version` behind; without, the
        service chooses the highest.
    fallback : path, optional
        The ONNX file of the model, asked when the service does not answer, not in time, or is
        overloaded.
    timeout_s : float
        For the answer to a batch.
    pause_s : float
        For which the service is left alone after it did not answer.
    token : str, optional
        That the service asks for.

    Attributes
    ----------
    n_remote : int
        Calls that the service answered.
    fallbacks : collections.Counter
        Calls that the file answered, by the reason.

    Raises
    ------
    ConfigError
        If the address is none, or tritonclient is missing.
    """

    def __init__(
        self,
        address: str,
        *,
        fallback: str | Path | None = None,
        timeout_s: float = 1.0,
        pause_s: float = 1.0,
        token: str | None = None,
    ) -> None:
        url = urlsplit(address)
        self._model, _, self._version = url.path.strip("/").partition("/")
        if url.scheme not in ("http", "grpc") or not url.netloc or not self._model:
            raise ConfigError(
                f"{address!r}: expected http://host:port/model or grpc://host:port/model"
            )
        try:
            self._library = importlib.import_module(f"tritonclient.{url.scheme}")
        except ImportError as error:
            raise ConfigError(f"{error.name} is missing: pip install 'pfcalib[serve]'") from error
        self._is_grpc = url.scheme == "grpc"
        options: dict[str, Any] = (
            {
                "channel_args": [
                    ("grpc.max_send_message_length", -1),
                    ("grpc.max_receive_message_length", -1),
                    ("grpc.max_reconnect_backoff_ms", int(1000 * pause_s)),
                ]
            }
            if self._is_grpc
            else {"connection_timeout": timeout_s, "network_timeout": timeout_s}
        )
        self._client = self._library.InferenceServerClient(url.netloc, **options)
        self._local = LocalModel(fallback) if fallback is not None else None
        self._address, self._token = address, token
        self._timeout_s, self._pause_s = timeout_s, pause_s
        self._batch: int | None = None  # clusters in a request, once the service has told
        self._pause_until = 0.0
        self.n_remote = 0
        self.fallbacks: collections.Counter[str] = collections.Counter()

    def predict(self, inputs: Arrays) -> NDArray[np.float32]:
        """Output for some clusters, as `LocalModel.predict`.

        Raises
        ------
        Refusal
            If the inputs are not those of the model, the service asks for another token, or there
            is no answer and no file.
        ValidationError
            If the service has another model than the file.
        """
        if self._local is not None and time.monotonic() < self._pause_until:
            self.fallbacks["pause"] += 1
            return self._local.predict(inputs)
        from tritonclient.utils import InferenceServerException

        try:
            output = self._ask(inputs)
        except (OSError, http.client.HTTPException, InferenceServerException) as error:
            self._batch = None  # the next one may be another service
            status = error.status() if isinstance(error, InferenceServerException) else None
            if isinstance(error, InferenceServerException) and status not in NO_ANSWER:
                raise Refusal(Reason.INVALID, f"{self._address}: {error}") from error
            if self._local is None:
                raise Refusal(Reason.CLOSING, f"{self._address}: no answer: {error}") from error
            self._pause_until = time.monotonic() + self._pause_s
            self.fallbacks[status or type(error).__name__] += 1
            return self._local.predict(inputs)
        self.n_remote += 1
        return output

    def _ask(self, inputs: Arrays) -> NDArray[np.float32]:
        lengths = {len(array) for array in inputs.values()}
        if len(lengths) != 1:
            raise Refusal(
                Reason.INVALID, f"inputs have {sorted(lengths)} clusters: expected one number"
            )
        n_clusters = max(lengths.pop(), 1)
        if self._batch is None:
            self._batch = self._configuration()["max_batch_size"]
        batch = self._batch or n_clusters  # Triton tells 0 of models without batches
        parts = [
            self._ask_once({name: array[i : i + batch] for name, array in inputs.items()})
            for i in range(0, n_clusters, batch)
        ]
        return np.concatenate(parts)

    def _ask_once(self, inputs: Arrays) -> NDArray[np.float32]:
        tensors = []
        for name, array in inputs.items():
            tensors.append(self._library.InferInput(name, list(array.shape), "FP32"))
            tensors[-1].set_data_from_numpy(array)
        found = self._client.infer(
            self._model,
            tensors,
            model_version=self._version,
            timeout=int(1e6 * self._timeout_s),
            **self._options(),
        )
        answer = found.get_response()
        if self._is_grpc:
            name, sha256 = answer.outputs[0].name, answer.parameters["sha256"].string_param
        else:
            name = answer["outputs"][0]["name"]
            sha256 = answer.get("parameters", {}).get("sha256")
        if self._local is not None and sha256 and sha256 != self._local.sha256:
            raise ValidationError(
                f"{self._address} serves another model than {self._local.path} (sha256 differs)"
            )
        return found.as_numpy(name)

    def _configuration(self) -> dict[str, Any]:
        if not self._is_grpc:
            return self._client.get_model_config(self._model, self._version, **self._options())
        return self._client.get_model_config(
            self._model, self._version, as_json=True, **self._options()
        )["config"]

    def _options(self) -> dict[str, Any]:
        """Of each call; the client for HTTP writes into the headers."""
        options: dict[str, Any] = {"client_timeout": self._timeout_s} if self._is_grpc else {}
        if self._token:
            options["headers"] = {"authorization": f"Bearer {self._token}"}
        return options
