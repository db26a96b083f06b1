"""Two processes that share every batch learn what one does, go on after a kill, and say so if the
other is gone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import ConfigError
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import HISTORY, read_history
from pfcalib.training.together import join_workers

ROOT = Path(__file__).resolve().parents[2]
SAMPLE, FOLDER, EPOCHS = range(1, 4)
# 32 does not divide the clusters: the last batch is smaller
JOB = """\
import sys
from pathlib import Path
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, fit_network
from pfcalib.training.together import fit_together, join_workers
sample, folder, epochs, n_workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
train = TrainConfig(learning_rate=1e-3, batch_size=32, epochs=epochs, seed=3)
config = NetworkConfig(name="dnn", options={"widths": [16], "dropout": 0.0}, train=train)
if n_workers == "1":
    fit_network(sample, config, folder=folder)
else:
    fit_together(join_workers(), sample, config, folder=folder)
"""


def free_ports(n):
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(arguments, n_workers):
    """The processes of a training."""
    places = [f"127.0.0.1:{port}" for port in free_ports(n_workers)]
    jobs = []
    for number in range(n_workers):
        task = {"type": "worker", "index": number}
        told = json.dumps({"cluster": {"worker": places}, "task": task})
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB, *map(str, arguments), str(n_workers)],
                env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return jobs


def finish(jobs):
    return [(job.communicate(timeout=300)[0], job.returncode) for job in jobs]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "toy.root"
    write_sample(path, make_sample(np.random.default_rng(7), 1001))
    return path


@pytest.mark.lab
def test_two_workers_give_the_loss_curve_of_one_and_go_on_after_a_kill(sample, tmp_path):
    (said, code), *_ = finish(start([sample, tmp_path / "one", 4], 1))
    assert code == 0, said
    # one is killed after its first epoch: the other has to notice
    jobs = start([sample, tmp_path / "two", 4], 2)
    line = jobs[0].stdout.readline()
    jobs[1].kill()
    (said, code), _ = finish(jobs)
    assert line.startswith("epoch   1/4"), line + said
    if code != 0:  # it may have been done
        assert "another worker is gone" in said
    ends = finish(start([sample, tmp_path / "two", 4], 2))
    assert [code for _, code in ends] == [0, 0], ends
    one, two = (read_history(tmp_path / name / HISTORY) for name in ("one", "two"))
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("told", ["", "{}", '{"cluster": {"worker": []}}', "worker"])
def test_without_other_workers_it_says_what_is_missing(told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(ConfigError, match="TF_CONFIG must be"):
        join_workers()
