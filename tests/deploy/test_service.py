"""The service gives the answers of ONNX Runtime, to each client its own, through the clients that
Triton publishes; what it cannot answer it refuses with a reason, and it forgets nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pfcalib.deploy.client import LocalModel, RemoteModel
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.service.batching import Batcher, BatchingConfig
from pfcalib.deploy.service.refusal import Reason, Refusal
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.models.families import MODEL_KINDS, build_model

PROTOCOLS = ("http", "grpc")
LIBRARIES = {
    protocol: pytest.importorskip(
        f"tritonclient.{protocol}", reason="the extra [serve] is not installed"
    )
    for protocol in PROTOCOLS
}
Refused = LIBRARIES["http"].InferenceServerException
STATUS = {
    reason: {"http": str(reason.value[0]), "grpc": f"StatusCode.{reason.value[1]}"}
    for reason in Reason
}
SLOW = {"max_wait_us": 400_000, "max_queue": 4}  # waits long for others, and few may wait

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2


class Service(NamedTuple):
    """A service in a process of its own."""

    process: subprocess.Popen
    http: str
    grpc: str
    folder: Path

    def client(self, protocol):
        return LIBRARIES[protocol].InferenceServerClient(getattr(self, protocol))

    def get(self, path, **headers):
        request = urllib.request.Request(f"http://{self.http}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()


@contextlib.contextmanager
def running(folder, ports=None, options=()):
    command = [sys.executable, "-m", "pfcalib", "serve", str(folder), *options]
    for protocol in PROTOCOLS:
        command += [f"--{protocol}-port", str(ports[protocol] if ports else 0)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while not line.startswith("serving"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
        http, grpc = re.search(r"http://(\S+), grpc (\S+)", line).groups()
        yield Service(process, http, grpc, folder)
    finally:
        process.kill()
        process.communicate()


def export(kind, path, *, seed, **settings):
    keras.utils.set_random_seed(seed)
    model = build_model(kind, **settings)
    rng = np.random.default_rng(1)
    inputs = {
        tensor.name: rng.normal(0.1, 0.3, (100, *tensor.shape[1:])).astype(np.float32)
        for tensor in model.inputs
    }
    export_onnx(model, path, inputs=inputs, kind=MODEL_KINDS[kind])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders with a model each: two small networks on pixels, and one on points."""
    folder = tmp_path_factory.mktemp("exported")
    for seed in (1, 2):
        export("dnn", folder / str(seed) / "dnn.onnx", seed=seed, n_pixels=6, widths=[8, 4])
    export("points", folder / "3" / "points.onnx", seed=3, widths=[8, 4])
    return folder


def copy_model(source, target):
    """Three files under the name of another model, which is that of the folder."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copy(path, target / path.name.replace(path.name.split(".")[0], target.parent.name))


@pytest.fixture(scope="module")
def service(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    copy_model(exported / "1", folder / "dnn" / "1")
    copy_model(exported / "2", folder / "dnn" / "10")
    copy_model(exported / "1", folder / "moving" / "1")
    copy_model(exported / "1", folder / "slow" / "1")
    (folder / "slow" / "service.json").write_text(json.dumps(SLOW))
    copy_model(exported / "3", folder / "points" / "1")
    (folder / "empty").mkdir()
    with running(
        folder, options=("--max-batch", "250", "--max-wait-us", "2000", "--max-mb", "1")
    ) as found:
        yield found


def onnx_path(service, model, version):
    return service.folder / model / str(version) / f"{model}.onnx"


def draw(path, n_clusters, seed):
    """Inputs of a model; no point is one of the padding."""
    rng = np.random.default_rng(seed)
    return {
        node.name: rng.integers(1, 6, (n_clusters, *node.shape[1:])).astype(np.float32)
        if node.name == "points"
        else rng.normal(0.1, 0.3, (n_clusters, *node.shape[1:])).astype(np.float32)
        for node in open_session(path).get_inputs()
    }


def direct(path, inputs):
    return open_session(path).run(None, inputs)[0]


def ask(client, model, inputs, **options):
    """Answer of a client of Triton's."""
    library = LIBRARIES[
        "grpc" if isinstance(client, LIBRARIES["grpc"].InferenceServerClient) else "http"
    ]
    tensors = []
    for name, array in inputs.items():
        datatype = f"FP{8 * array.itemsize}"
        tensors.append(library.InferInput(name, list(array.shape), datatype))
        tensors[-1].set_data_from_numpy(array)
    return client.infer(model, tensors, **options)


def post(service, path, body, **headers):
    request = urllib.request.Request(f"http://{service.http}{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def client(service, protocol):
    with service.client(protocol) as found:
        yield found


@pytest.mark.parametrize("model", ["dnn", "points"])
@pytest.mark.parametrize("n_clusters", [1, 250])
def test_the_answer_is_that_of_onnx_runtime(service, client, model, n_clusters):
    path = onnx_path(service, model, 10 if model == "dnn" else 1)
    inputs = draw(path, n_clusters, seed=4)
    answer = ask(client, model, inputs, request_id="7")
    np.testing.assert_allclose(answer.as_numpy("p"), direct(path, inputs), rtol=0, atol=1e-6)


def test_the_highest_version_answers_unless_another_is_asked_for(service, client):
    inputs = draw(onnx_path(service, "dnn", 1), 5, seed=4)
    answers = {version: ask(client, "dnn", inputs, model_version=version) for version in ("", "1")}
    expected = {"": 10, "1": 1}
    for version, answer in answers.items():
        path = onnx_path(service, "dnn", expected[version])
        np.testing.assert_allclose(answer.as_numpy("p"), direct(path, inputs), rtol=0, atol=1e-6)
    assert np.abs(answers[""].as_numpy("p") - answers["1"].as_numpy("p")).max() > 1e-3


def test_each_of_many_clients_gets_its_own_answers_from_joined_runs(service, protocol):
    path = onnx_path(service, "dnn", 10)
    session = open_session(path)
    n_clients, n_calls = 16, 20

    def work(seed):
        rng = np.random.default_rng(seed)
        worst = 0.0
        with service.client(protocol) as client:
            for _ in range(n_calls):
                inputs = {"pixels": rng.normal(0, 3, (rng.integers(1, 9), 6)).astype(np.float32)}
                answer = ask(client, "dnn", inputs).as_numpy("p")
                worst = max(worst, np.abs(answer - session.run(None, inputs)[0]).max())
        return worst

    before = statistics(service, "dnn", "10")
    with ThreadPoolExecutor(n_clients) as pool:
        assert max(pool.map(work, range(n_clients))) < 1e-6
    after = statistics(service, "dnn", "10")
    n_answered, n_runs = (
        after["inference_stats"]["success"]["count"]
        - before["inference_stats"]["success"]["count"],
        after["execution_count"] - before["execution_count"],
    )
    assert n_answered == n_clients * n_calls
    assert n_runs < n_answered / 2


def statistics(service, model, version):
    return json.loads(service.get(f"/v2/models/{model}/versions/{version}/stats"))["model_stats"][0]


def test_lists_of_points_may_be_shorter_and_are_padded_with_zeros(service, client):
    path = onnx_path(service, "points", 1)
    inputs = draw(path, 4, seed=5)
    whole = {**inputs, "points": inputs["points"].copy()}
    whole["points"][:, 9:] = 0.0
    short = {**inputs, "points": inputs["points"][:, :9]}
    answer = ask(client, "points", short).as_numpy("p")
    np.testing.assert_allclose(answer, direct(path, whole), rtol=0, atol=1e-6)
    assert np.abs(answer - direct(path, inputs)).max() > 1e-4


def test_plain_json_is_understood(service):
    inputs = draw(onnx_path(service, "dnn", 10), 3, seed=6)
    for data in (inputs["pixels"].tolist(), inputs["pixels"].ravel().tolist()):
        tensor = {"name": "pixels", "shape": [3, 6], "datatype": "FP32", "data": data}
        body = json.dumps({"id": "a", "inputs": [tensor], "outputs": [{"name": "p"}]}).encode()
        status, answer = post(service, "/v2/models/dnn/infer", body)
        assert (status, answer["id"], answer["model_version"]) == (200, "a", "10")
        found = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
        expected = direct(onnx_path(service, "dnn", 10), inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_compressed_request_is_understood(service):
    inputs = draw(onnx_path(service, "dnn", 10), 3, seed=6)
    with service.client("http") as client:
        answer = ask(client, "dnn", inputs, request_compression_algorithm="gzip")
    expected = direct(onnx_path(service, "dnn", 10), inputs)
    np.testing.assert_allclose(answer.as_numpy("p"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "inputs: List should have at least 1"),
        ({"inputs": [{"name": "pixels", "datatype": "FP32"}]}, "inputs.0.shape: Field required"),
        ({"data": [[1, 2, 3, 4, 5, "6"]]}, "expected numbers"),
        ({"data": [[1, 2, 3, 4, 5, None]]}, "expected numbers"),
        ({"data": [1, 2, 3]}, "cannot reshape"),
        ({"data": [1e300] * 6}, "overflow"),
        ({"shape": [-1, 6]}, "greater than or equal to 0"),
        ({"parameters": {"binary_data_size": 24}}, "bytes need a whole size"),
        ({"parameters": {"shared_memory_region": "a"}}, "is not supported"),
    ],
)
def test_json_that_is_no_request_is_refused_with_its_field(service, change, message):
    tensor = {"name": "pixels", "shape": [1, 6], "datatype": "FP32", "data": [0.0] * 6}
    request = {"inputs": [{**tensor, **change}]} if "inputs" not in change else change
    status, answer = post(service, "/v2/models/dnn/infer", json.dumps(request).encode())
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("length", "tail", "message"),
    [
        ("true", b"\0" * 24, "expected a whole number"),
        (None, b"\0" * 23, "23 bytes for [1, 6], expected 24"),
        (None, b"\0" * 25, "bytes where the tensors ask for"),
        ("5", b"\0" * 24, "Invalid JSON"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(service, length, tail, message):
    tensor = {
        "name": "pixels",
        "shape": [1, 6],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 24},
    }
    header = json.dumps({"inputs": [tensor]}).encode()
    name = "Inference-Header-Content-Length"
    status, answer = post(
        service, "/v2/models/dnn/infer", header + tail, **{name: length or str(len(header))}
    )
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("inputs", "options", "reason", "message"),
    [
        ({"cells": (2, 6)}, {}, Reason.INVALID, "the model asks for pixels"),
        ({"pixels": (2, 5)}, {}, Reason.INVALID, r"expected float32 \(n, 6\)"),
        ({"pixels": (2, 1, 6)}, {}, Reason.INVALID, r"expected float32 \(n, 6\)"),
        ({"pixels": (0, 6)}, {}, Reason.INVALID, "one number above 0"),
        ({"pixels": (251, 6)}, {}, Reason.INVALID, "at most 250"),
        ({"pixels": (2, 6)}, {"dtype": np.float64}, Reason.INVALID, "type FP64, expected FP32"),
        ({"pixels": (2, 6)}, {"model": "cnn"}, Reason.UNKNOWN, "'cnn' is not served"),
        ({"pixels": (2, 6)}, {"version": "2"}, Reason.UNKNOWN, "there is 1, 10"),
        ({"pixels": (2, 6)}, {"output": "q"}, Reason.INVALID, "no output 'q'; there is p"),
        (
            {"moments": (2, 34), "points": (2, 65, 5)},
            {"model": "points"},
            Reason.INVALID,
            "or less on the second axis",
        ),
        (
            {"moments": (3, 34), "points": (2, 64, 5)},
            {"model": "points"},
            Reason.INVALID,
            r"inputs have \[2, 3\] clusters",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_wrong(
    protocol, client, inputs, options, reason, message
):
    arrays = {
        name: np.zeros(shape, options.get("dtype", np.float32)) for name, shape in inputs.items()
    }
    more = (
        {"outputs": [LIBRARIES[protocol].InferRequestedOutput(options["output"])]}
        if ("output" in options)
        else {}
    )
    with pytest.raises(Refused, match=message) as caught:
        ask(
            client,
            options.get("model", "dnn"),
            arrays,
            model_version=options.get("version", ""),
            **more,
        )
    assert caught.value.status() == STATUS[reason][protocol]


def test_a_request_that_is_too_large_is_refused(client, protocol):
    with pytest.raises(Refused) as caught:
        ask(client, "dnn", {"pixels": np.zeros((50_000, 6), np.float32)})
    assert (
        caught.value.status() == {"http": "413", "grpc": "StatusCode.RESOURCE_EXHAUSTED"}[protocol]
    )
    assert client.is_server_live()


def test_the_service_tells_what_it_serves(client, protocol):
    plain = {} if protocol == "http" else {"as_json": True}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("dnn")
    assert not client.is_model_ready("dnn", "2")
    assert client.get_server_metadata(**plain)["name"] == "pfcalib"
    metadata = client.get_model_metadata("points", **plain)
    assert metadata["versions"] == ["1"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["moments", "points"]
    assert [int(axis) for axis in metadata["inputs"][1]["shape"]] == [-1, 64, 5]
    config = client.get_model_config("slow", **plain)
    config = config if protocol == "http" else config["config"]
    assert config["max_batch_size"] == 250  # the service's
    wait_us = config["dynamic_batching"]["max_queue_delay_microseconds"]
    assert int(wait_us) == SLOW["max_wait_us"]  # the model's own
    stats = client.get_inference_statistics("dnn", **plain)["model_stats"]
    assert [of["version"] for of in stats] == ["1", "10"]
    index = client.get_model_repository_index(**plain)
    states = {of["name"]: of["state"] for of in (index if protocol == "http" else index["models"])}
    assert states["dnn"] == "READY"
    assert states["empty"] == "UNAVAILABLE"


def test_prometheus_reads_what_was_done(service):
    before = counted(service, "requests_answered_total", "dnn", 1)
    with service.client("http") as client:
        ask(client, "dnn", {"pixels": np.zeros((3, 6), np.float32)}, model_version="1")
    assert counted(service, "requests_answered_total", "dnn", 1) == before + 1
    assert counted(service, "run_seconds_total", "dnn", 1) > 0.0


def counted(service, name, model, version, **headers):
    pattern = rf'^pfcalib_{name}{{model="{model}",version="{version}"}} (\S+)$'
    return float(re.search(pattern, service.get("/metrics", **headers), re.MULTILINE)[1])


def test_an_unknown_address_is_told_in_json(service):
    assert post(service, "/v2/nothing", b"")[0] == 404
    assert post(service, "/v2/repository/index", b"[")[0] == 400


def test_a_version_that_does_not_pass_leaves_the_old_one(service, client, exported):
    """Changed by one byte it is refused; whole it is served."""
    folder = service.folder / "moving"
    shutil.rmtree(folder / "2", ignore_errors=True)
    client.load_model("moving")
    inputs = draw(folder / "1" / "moving.onnx", 5, seed=7)
    copy_model(exported / "2", folder / "2")
    good = (folder / "2" / "moving.onnx").read_bytes()
    (folder / "2" / "moving.onnx").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(Refused, match=r"2/moving\.onnx"):
        client.load_model("moving")
    np.testing.assert_allclose(
        ask(client, "moving", inputs).as_numpy("p"),
        direct(folder / "1" / "moving.onnx", inputs),
        rtol=0,
        atol=1e-6,
    )
    assert "sha256 differs" in json.dumps(post(service, "/v2/repository/index", b"")[1])

    (folder / "2" / "moving.onnx").write_bytes(good)
    both = [direct(folder / version / "moving.onnx", inputs) for version in ("1", "2")]
    with ThreadPoolExecutor(4) as pool:
        loaded = threading.Event()
        callers = [
            pool.submit(ask_until, loaded, service, caller, inputs) for caller in 2 * PROTOCOLS
        ]
        try:
            client.load_model("moving")
        finally:
            loaded.set()
        for answer in [answer for caller in callers for answer in caller.result()]:
            assert min(np.abs(answer - expected).max() for expected in both) < 1e-6
    np.testing.assert_allclose(
        ask(client, "moving", inputs).as_numpy("p"),
        direct(folder / "2" / "moving.onnx", inputs),
        rtol=0,
        atol=1e-6,
    )
    client.unload_model("moving")
    assert not client.is_model_ready("moving")
    with pytest.raises(Refused, match="not served"):
        ask(client, "moving", inputs)
    client.load_model("moving")
    assert client.is_model_ready("moving", "2")


def ask_until(ended, service, protocol, inputs):
    """Answers of a model that is loaded again meanwhile."""
    answers = []
    with service.client(protocol) as client:
        while not ended.is_set():
            answers.append(ask(client, "moving", inputs).as_numpy("p"))
    return answers


def test_models_outside_the_folder_are_not_loaded(service, client):
    for name in ("..", "../dnn", "dnn/1"):
        with pytest.raises(Refused):
            client.load_model(name)
    with pytest.raises(Refused, match="as they lie there"):
        client.load_model("dnn", config="{}")


def test_a_full_queue_refuses_and_answers_those_in_it(service, protocol):
    inputs = draw(onnx_path(service, "slow", 1), 1, seed=8)
    expected = direct(onnx_path(service, "slow", 1), inputs)

    def work(_):
        with service.client(protocol) as client:
            try:
                return ask(client, "slow", inputs).as_numpy("p")
            except Refused as error:
                return error.status()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(work, range(12)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    right = [answer for answer in answers if not isinstance(answer, str)]
    assert set(refused) == {STATUS[Reason.OVERLOADED][protocol]}
    assert len(right) >= SLOW["max_queue"]
    for answer in right:
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_a_request_that_waits_too_long_is_told_so_and_not_run(service, client, protocol):
    before = statistics(service, "slow", "1")["inference_count"]
    inputs = draw(onnx_path(service, "slow", 1), 1, seed=8)
    with pytest.raises(Refused) as caught:
        ask(client, "slow", inputs, timeout=20_000)
    assert caught.value.status() == STATUS[Reason.TIMED_OUT][protocol]
    ask(client, "slow", inputs)
    assert statistics(service, "slow", "1")["inference_count"] == before + 1


def test_only_who_has_the_token_is_answered_and_the_end_loses_nothing(exported, tmp_path):
    """One service for both: what waits at SIGTERM is answered."""
    copy_model(exported / "1", tmp_path / "models" / "dnn" / "1")
    (tmp_path / "token").write_text("secret\n")
    wait = ("--max-wait-us", "5000000", "--token-file", str(tmp_path / "token"))
    inputs = draw(tmp_path / "models" / "dnn" / "1" / "dnn.onnx", 1, seed=9)
    expected = direct(tmp_path / "models" / "dnn" / "1" / "dnn.onnx", inputs)
    right = {"authorization": "Bearer secret"}
    with running(tmp_path / "models", options=wait) as service:
        for protocol in PROTOCOLS:
            with service.client(protocol) as client:
                assert client.is_server_ready()
                for headers in (None, {"authorization": "Bearer secre"}):
                    with pytest.raises(Refused) as caught:
                        ask(client, "dnn", inputs, headers=headers)
                    assert caught.value.status() == STATUS[Reason.UNAUTHENTICATED][protocol]

        def work(protocol):
            with service.client(protocol) as client:
                return ask(client, "dnn", inputs, headers=dict(right)).as_numpy("p")

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(work, protocol) for protocol in 4 * PROTOCOLS]
            while counted(service, "clusters_waiting", "dnn", 1, **right) < 8:
                time.sleep(0.02)
            service.process.send_signal(signal.SIGTERM)
            for answer in answers:
                np.testing.assert_allclose(answer.result(), expected, rtol=0, atol=1e-6)
        assert service.process.wait(60) == 0


def test_a_service_that_cannot_start_says_why(exported, tmp_path):
    copy_model(exported / "1", tmp_path / "dnn" / "1")
    (tmp_path / "dnn" / "1" / "dnn.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "pfcalib", "serve", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "dnn is not served" in done.stdout
    assert done.stderr == f"pfcalib: {tmp_path}: no model can be served\n"


def test_a_client_goes_on_without_the_service(exported, tmp_path):
    """Killed and started again under calls; each answer is right and counted."""
    copy_model(exported / "1", tmp_path / "dnn" / "1")
    path = tmp_path / "dnn" / "1" / "dnn.onnx"
    inputs = draw(path, 600, seed=10)  # more than a batch
    expected = direct(path, inputs)
    ports = {protocol: free_port() for protocol in PROTOCOLS}
    models = [
        RemoteModel(f"{protocol}://127.0.0.1:{port}/dnn", fallback=path, pause_s=0.05)
        for protocol, port in ports.items()
    ]

    def call(n_calls):
        for _ in range(n_calls):
            for model in models:
                np.testing.assert_allclose(model.predict(inputs), expected, rtol=0, atol=1e-6)
            time.sleep(0.01)

    call(2)
    assert [model.n_remote for model in models] == [0, 0]
    for _ in range(2):
        with running(tmp_path, ports) as service:
            before = [model.n_remote for model in models]
            while any(model.n_remote < n + 3 for model, n in zip(models, before, strict=True)):
                call(1)
            for model in models:
                with pytest.raises(Refusal, match="asks for pixels"):
                    model.predict({"cells": inputs["pixels"]})
            service.process.kill()
            call(10)
    for model in models:
        n_local = sum(model.fallbacks.values())
        assert n_local >= 12
        assert model.fallbacks["pause"] < n_local


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_client_without_a_file_says_that_there_is_no_answer():
    with pytest.raises(Refusal, match="no answer"):
        RemoteModel("http://127.0.0.1:9/dnn").predict({"pixels": np.zeros((1, 6), np.float32)})
    for address in ("ftp://127.0.0.1/dnn", "http://127.0.0.1:8000", "dnn.onnx"):
        with pytest.raises(ConfigError, match="expected http"):
            RemoteModel(address)


def test_a_client_does_not_mix_two_models(service, protocol):
    """The file is version 1, the service answers with version 10."""
    path = onnx_path(service, "dnn", 1)
    inputs = draw(path, 2, seed=11)
    address = f"{protocol}://{getattr(service, protocol)}/dnn"
    with pytest.raises(ValidationError, match="another model"):
        RemoteModel(address, fallback=path).predict(inputs)
    answer = RemoteModel(f"{address}/1", fallback=path).predict(inputs)
    np.testing.assert_allclose(answer, LocalModel(path).predict(inputs), rtol=0, atol=1e-6)


def test_a_client_cuts_no_input_short(service, protocol):
    inputs = draw(onnx_path(service, "points", 1), 600, seed=13)
    address = f"{protocol}://{getattr(service, protocol)}/points"
    for name, array in inputs.items():
        with pytest.raises(Refusal, match=r"have \[250, 600\] clusters"):
            RemoteModel(address).predict({**inputs, name: array[:250]})


def test_a_local_file_takes_the_inputs_that_the_service_takes(service):
    path = onnx_path(service, "points", 1)
    inputs = draw(path, 300, seed=12)
    short = {**inputs, "points": inputs["points"][:, :9]}
    whole = {**inputs, "points": inputs["points"].copy()}
    whole["points"][:, 9:] = 0.0
    np.testing.assert_allclose(
        LocalModel(path).predict(short), direct(path, whole), rtol=0, atol=1e-6
    )
    with pytest.raises(Refusal, match="asks for moments, points"):
        LocalModel(path).predict({"points": inputs["points"]})


def sums_of_rows():
    """A model that adds up a list of any length."""
    shape = ["n", "k", 2]
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["points", "axes"], ["sum"], keepdims=0)],
        "sums",
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_lists_of_any_length_are_joined_with_those_of_their_length(rng):
    parts = [rng.normal(size=(n, 3 + n % 2, 2)).astype(np.float32) for n in (1, 2, 3, 4, 5)]

    async def run():
        batcher = Batcher(sums_of_rows(), BatchingConfig(max_wait_us=50_000))
        answers = await asyncio.gather(*(batcher.run({"points": part}) for part in parts))
        await batcher.close()
        return answers, batcher.statistics.n_runs

    answers, n_runs = asyncio.run(run())
    for answer, part in zip(answers, parts, strict=True):
        np.testing.assert_allclose(answer["sum"], part.sum(axis=1), rtol=1e-5)
    assert n_runs == 2


def test_a_batch_is_never_larger_than_allowed(rng):
    """Requests of 3 clusters fit twice into 7; the last is alone."""
    parts = [rng.normal(size=(3, 4, 2)).astype(np.float32) for _ in range(5)]

    async def run():
        batcher = Batcher(sums_of_rows(), BatchingConfig(max_wait_us=50_000, max_batch=7))
        answers = await asyncio.gather(*(batcher.run({"points": part}) for part in parts))
        with pytest.raises(Refusal, match="at most 7"):
            await batcher.run({"points": np.zeros((8, 4, 2), np.float32)})
        await batcher.close()
        with pytest.raises(Refusal, match="unloaded"):
            await batcher.run({"points": parts[0]})
        return answers, batcher.statistics.n_runs

    answers, n_runs = asyncio.run(run())
    for answer, part in zip(answers, parts, strict=True):
        np.testing.assert_allclose(answer["sum"], part.sum(axis=1), rtol=1e-5)
    assert n_runs == 3


def test_all_that_waits_when_a_model_is_unloaded_is_answered(rng):
    """More than one batch of it."""
    parts = [rng.normal(size=(1, 4, 2)).astype(np.float32) for _ in range(50)]

    async def run():
        batcher = Batcher(sums_of_rows(), BatchingConfig(max_batch=1))
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(batcher.run({"points": part})) for part in parts]
            tasks.create_task(batcher.close())
        return [answer.result()["sum"] for answer in answers]

    for answer, part in zip(asyncio.run(run()), parts, strict=True):
        np.testing.assert_allclose(answer, part.sum(axis=1), rtol=1e-5)
