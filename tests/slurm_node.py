"""SLURM on this machine alone: a cluster of one node in a temporary folder, on the loopback, with
key, state and logs of its own.

Needs Debian's ``slurm-wlm`` and ``munge``, and the rights of root, as which all of it runs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
# where SLURM looks without SLURM_CONF, which Snakemake takes away from the steps of a job
FOUND_BY_ITSELF = Path("/run/slurm/conf")
SECONDS = 60.0  # that a daemon may take to answer
CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=defer_batch,batch_sched_delay=0,sched_interval=5
MinJobAge=600
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why SLURM cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if not _find(name)]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    if Path("/etc/slurm/slurm.conf").exists() or FOUND_BY_ITSELF.exists():
        return "this machine belongs to a SLURM cluster already"
    return "" if os.geteuid() == 0 else "SLURM is started as root only"


@contextlib.contextmanager
def slurm_node(folder: Path, cores: int = 2, memory: int = 16_000) -> Iterator[dict[str, str]]:
    """Start the node and stop it with all of its jobs; gives the environment in which ``sbatch``
    finds it.

    Parameters
    ----------
    folder : Path
        Empty; its path must be short, as that of a socket.
    cores, memory : int
        That jobs may have, memory in MB; whether the machine has them is not asked.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)  # munged wants its folder not to be writable by others
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller, daemon = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder, host=host, controller=controller, daemon=daemon, cores=cores,
            memory=memory,
        )
    )  # fmt: skip
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    commands = [
        [_find("munged"), "--foreground", "--force", f"--key-file={key}",
         f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
         f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
        [_find("slurmctld"), "-D", "-c"],
        [_find("slurmd"), "-D", "-N", host],
    ]  # fmt: skip
    with contextlib.ExitStack() as running:
        FOUND_BY_ITSELF.parent.mkdir(exist_ok=True)
        FOUND_BY_ITSELF.unlink(missing_ok=True)  # of a test that was killed
        FOUND_BY_ITSELF.symlink_to(folder)
        running.callback(FOUND_BY_ITSELF.unlink)
        for command in commands:
            running.enter_context(_daemon(command, environment, folder))
            if command is commands[0]:
                _wait(lambda: (folder / "munge.socket").exists(), "munged", folder)
        _wait(lambda: _is_idle(environment), "the node", folder)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user", "root"], env=environment, check=False)
            with contextlib.suppress(TimeoutError):
                _wait(lambda: not queued(environment), "the queue", folder)


def queued(environment: Mapping[str, str]) -> list[str]:
    """Ids of the jobs that have not ended."""
    done = subprocess.run(
        ["squeue", "--noheader", "--format=%i"],
        env=dict(environment), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def _find(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path) or ""


@contextlib.contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    log = folder / f"{Path(command[0]).name}.out"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%t"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() == "idle"


def _wait(happened, what: str, folder: Path) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + SECONDS
    while not happened():
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-1000:] for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"{what} does not answer:\n{logs}")
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
