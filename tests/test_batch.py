"""The graph of studies runs on batch systems: profiles and graph fit the executors, as dry runs
tell, and SLURM, started here on the loopback, runs, loses and resumes jobs.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_node
import typer
import yaml

from pfcalib import cli
from pfcalib.reporting.comparison import disagreements
from pfcalib.reporting.results import read_results
from pfcalib.reporting.workflow import (
    PLACES,
    PROFILES,
    plan_jobs,
    run_workflow,
    snakemake_command,
)

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("01_showers", "02_clusters", "04_onnx")
# what an executor needs beyond the lock
PLUGINS = {
    "kubernetes": "snakemake_storage_plugin_fs",
    "panda": "snakemake_executor_plugin_panda",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_dry_run_for_each_batch_system_tells_the_jobs_and_what_they_ask_for(place):
    if (name := PLUGINS.get(place)) and not importlib.util.find_spec(name):
        pytest.skip(f"{name} is not installed, see pfcalib/data/profiles/{place}")
    config = {"studies": "03 04", "profile": "standard"}
    command = snakemake_command(config, on=place, dry_run=True, force=True)
    # without it the client of PanDA asks for its server's name when it is imported
    environment = {**os.environ, "PANDA_BEHIND_REAL_LB": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = plan_jobs(config, ROOT)
    assert second.after == (first.target,)
    for job in (first, second):
        assert f"rule {job.name}:" in done.stdout
        assert job.target in done.stdout
    assert done.stdout.count("mem_mb=12000") == 2


@pytest.mark.parametrize("place", [place for place in PLACES if place != "local"])
def test_profiles_name_their_executor_and_leave_common_options_to_the_default_one(place):
    settings = yaml.safe_load((PROFILES / place / "config.yaml").read_text())
    common = yaml.safe_load((PROFILES / "default" / "config.yaml").read_text())
    assert settings["executor"] == place
    assert settings["jobs"] > 0
    assert not settings.keys() & common.keys()


def make_clone(folder: Path) -> Path:
    """The parts of this clone that a workflow needs, with reports of its own."""
    folder.mkdir()
    for name in ("Snakefile", "requirements.lock", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def start_report(clone: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pfcalib", "report", *QUICK, "--on", "slurm"]
    return subprocess.Popen(
        command, cwd=clone, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


@pytest.mark.lab
@pytest.mark.skipif(bool(slurm_node.why_not()), reason=slurm_node.why_not())
def test_slurm_runs_three_studies_and_a_killed_workflow_goes_on_with_what_is_missing(
    tmp_path, tmp_path_factory
):
    clone = make_clone(tmp_path / "killed")
    jobs = plan_jobs({"studies": " ".join(QUICK)}, clone)
    with slurm_node.slurm_node(tmp_path_factory.mktemp("slurm")) as environment:
        environment |= {"PYTHONPATH": str(ROOT)}
        first = start_report(clone, environment)
        while not any(job.plan.marker.exists() for job in jobs):
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.5)
        os.killpg(first.pid, signal.SIGKILL)  # the command and Snakemake
        print(first.communicate()[0])
        for job_id in slurm_node.queued(environment):
            subprocess.run(["scancel", "--signal=KILL", job_id], env=environment, check=False)
        while slurm_node.queued(environment):
            time.sleep(0.5)
        done = {
            job.name: job.plan.marker.stat().st_mtime_ns for job in jobs if job.plan.marker.exists()
        }
        assert 0 < len(done) < len(jobs)
        said, _ = (second := start_report(clone, environment)).communicate()
        print(said)
        assert second.returncode == 0
        for job in jobs:
            was_done = job.name in done
            assert was_done == (job.plan.marker.stat().st_mtime_ns == done.get(job.name))
            assert was_done == (f"{job.plan.study.name} (smoke): up to date" in said)
    lost = " ".join(job.plan.study.name for job in jobs if job.name not in done)
    undisturbed = run_workflow(
        {"studies": lost}, cores=1, root=make_clone(tmp_path / "undisturbed")
    )
    assert all(outcome.passed for outcome in undisturbed)
    for outcome in undisturbed:
        plan = outcome.job.plan
        one, two = (
            read_results(root / "reports" / plan.study.name / "smoke" / "results.json")
            for root in (plan.root, clone)
        )
        assert disagreements(one, two, 0.0, plan.study.timings) == []


def test_what_reana_is_given_is_there_and_its_command_is_one_of_ours():
    reana = yaml.safe_load((ROOT / "reana.yaml").read_text("utf-8"))
    inputs = reana["inputs"]
    assert all((ROOT / name).is_file() for name in inputs["files"])
    assert all((ROOT / name).is_dir() for name in inputs["directories"])
    (step,) = reana["workflow"]["specification"]["steps"]
    (command,) = step["commands"]
    for name, value in inputs["parameters"].items():
        command = command.replace(f"${{{name}}}", value)
    words = command.partition("python -m pfcalib ")[2].split()
    verb = typer.main.get_command(cli.app).commands[words[0]]  # type: ignore[attr-defined]
    verb.make_context(words[0], words[1:])
