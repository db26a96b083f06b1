"""What the Geant4 tests share: one cache for the tables, and rows shot by a session in a process of
its own.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pfcalib.simulation.digitise import Hits

SHOOT = """
import json, os, sys
import numpy as np
from pfcalib.geometry import GRIDS
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.session import Session

folder, grid, truth, parts = json.loads(sys.argv[1])
job = np.load(f"{folder}/job.npz")
session = Session(GRIDS[grid], find_data(), Geant4Config(calibration_truth=truth))
for i, part in enumerate(parts):
    hits = session.shoot(job["rows"][part], job["pdg_id"][part], job["seeds"][part])
    np.savez(f"{folder}/hits{i}.npz", unattributed=session.unattributed, **hits._asdict())
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Folder of the cache, with the tables in it once they are asked for."""
    folder = tmp_path_factory.mktemp("geant4-cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "GEANT4_DATA_DIR",
            "G4LEDATA",
            "G4PARTICLEXSDATA",
            "G4LEVELGAMMADATA",
            "G4ENSDFSTATEDATA",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("PFCALIB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shoot(tmp_path_factory):
    """Function (grid, rows, pdg_id, seeds, parts, calibration_truth) -> [(Hits, unattributed) of
    each part], all parts shot in one session.
    """

    def run(grid, rows, pdg_id, seeds, *, parts=None, calibration_truth=True):
        folder = tmp_path_factory.mktemp("shoot")
        np.savez(folder / "job.npz", rows=rows, pdg_id=pdg_id, seeds=seeds)
        parts = [list(range(len(rows)))] if parts is None else parts
        job = json.dumps([str(folder), grid, calibration_truth, parts])
        done = subprocess.run(
            [sys.executable, "-c", SHOOT, job],
            env=os.environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = [np.load(folder / f"hits{i}.npz") for i in range(len(parts))]
        return [
            (Hits(*(each[name] for name in Hits._fields)), each["unattributed"]) for each in found
        ]

    return run
