"""The KServe protocol, version 2, over gRPC, with the messages that Triton's client publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.deploy.service.access import Access
from pfcalib.deploy.service.refusal import Reason, Refusal
from pfcalib.deploy.service.repository import Repository
from pfcalib.deploy.service.tensors import FLOAT, from_bytes, require_outputs

SERVICE = "inference.GRPCInferenceService"
OPEN = ("ServerLive", "ServerReady")  # without a token


def build_handlers(repository: Repository, access: Access) -> Any:
    """Methods of the service, for `grpc.aio.Server.add_generic_rpc_handlers`; those that are
    missing (streams, shared memory, tracing) are answered as unimplemented.
    """
    import grpc
    from google.protobuf import json_format
    from tritonclient.grpc import service_pb2 as messages

    async def load(request: Any) -> dict[str, Any]:
        if request.parameters:
            told = ", ".join(request.parameters)
            raise Refusal(Reason.INVALID, f"models are loaded as they lie there, without {told}")
        await repository.load(request.model_name)
        return {}

    async def unload(request: Any) -> dict[str, Any]:
        await repository.unload(request.model_name)
        return {}

    async def infer(request: Any) -> Any:
        async with access.limited() as clock:
            served = repository.find(request.model_name, request.model_version)
            inputs = _inputs(request)
            asked = [output.name for output in request.outputs] or list(served.batcher.outputs)
            require_outputs(asked, served.batcher.outputs)
            if "timeout" in request.parameters:
                clock.shorten(request.parameters["timeout"].int64_param)
            outputs = await repository.infer(served, inputs)
        answer = messages.ModelInferResponse(
            model_name=served.model, model_version=served.version, id=request.id
        )
        answer.parameters["sha256"].string_param = served.digests[0]
        for name in asked:
            answer.outputs.add(name=name, datatype="FP32", shape=outputs[name].shape)
            answer.raw_output_contents.append(outputs[name].astype(FLOAT, copy=False).tobytes())
        return answer

    def method(name: str, tell: Callable[[Any], Any]) -> Any:
        """A method whose answer is a message, or what JSON tells of it."""
        answer_type = getattr(messages, f"{name}Response")

        async def call(request: Any, context: Any) -> Any:
            try:
                if name not in OPEN:
                    metadata = dict(context.invocation_metadata())
                    access.require(metadata.get("authorization"))
                found = tell(request)
                if isinstance(found, Awaitable):
                    found = await found
            except Refusal as error:
                refusal = error
            else:
                if isinstance(found, dict):
                    found = json_format.ParseDict(found, answer_type())
                return found
            await context.abort(getattr(grpc.StatusCode, refusal.reason.value[1]), str(refusal))

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=getattr(messages, f"{name}Request").FromString,
            response_serializer=answer_type.SerializeToString,
        )

    methods: dict[str, Callable[[Any], Any]] = {
        "ServerLive": lambda _: {"live": True},
        "ServerReady": lambda _: {"ready": repository.ready},
        "ServerMetadata": lambda _: repository.server_metadata(),
        "ModelReady": lambda of: {"ready": repository.is_ready(of.name, of.version)},
        "ModelMetadata": lambda of: repository.metadata(of.name, of.version),
        "ModelConfig": lambda of: {"config": repository.configuration(of.name, of.version)},
        "ModelStatistics": lambda of: repository.statistics(of.name, of.version),
        "ModelInfer": infer,
        "RepositoryIndex": lambda of: {"models": repository.index(only_ready=of.ready)},
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: method(name, tell) for name, tell in methods.items()}
    )


def _inputs(request: Any) -> dict[str, NDArray[np.float32]]:
    """Inputs by name, as bytes behind the message or as numbers in it."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refusal(Reason.INVALID, f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    inputs: dict[str, NDArray[np.float32]] = {}
    for i, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise Refusal(Reason.INVALID, f"input {tensor.name} is given twice")
        data = raw[i] if raw else np.array(tensor.contents.fp32_contents, dtype=FLOAT).tobytes()
        inputs[tensor.name] = from_bytes(tensor.name, tensor.datatype, list(tensor.shape), data)
    return inputs
