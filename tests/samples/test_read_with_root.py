"""ROOT itself reads what pfcalib writes: entries, sums, one cluster and the metadata."""

import json
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
import ROOT
file = ROOT.TFile.Open(sys.argv[1])
tree = file.Get("ClusterTree")
tree.GetEntry(7)
geo = file.Get("CellGeo")
geo.GetEntry(0)
frame = ROOT.RDataFrame("ClusterTree", sys.argv[1])
print("RESULT" + json.dumps({
    "entries": int(tree.GetEntries()),
    "truthE": frame.Sum("truthE").GetValue(),
    "cells": frame.Sum("cluster_cell_E").GetValue(),
    "ids": [int(value) for value in tree.cluster_cell_ID],
    "energies": [float(value) for value in tree.cluster_cell_E],
    "eta": [float(value) for value in geo.cell_geo_eta],
    "geo_entries": int(geo.GetEntries()),
    "metadata": str(file.Get("metadata").GetString().Data()),
}))
"""


def test_root_reads_the_same_numbers(sample, path):
    probe = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import ROOT"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if probe.returncode:
        pytest.skip(
            "ROOT cannot be imported here: "
            f"{(probe.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.split("RESULT")[1].splitlines()[0])
    seventh = slice(sample.offsets[7], sample.offsets[8])
    assert result["entries"] == len(sample)
    assert result["truthE"] == pytest.approx(sample["truthE"].sum(dtype=np.float64), rel=1e-6)
    assert result["cells"] == pytest.approx(
        sample.cells["cluster_cell_E"].sum(dtype=np.float64), rel=1e-6
    )
    assert result["ids"] == sample.cells["cluster_cell_ID"][seventh].tolist()
    assert result["energies"] == sample.cells["cluster_cell_E"][seventh].tolist()
    assert result["eta"] == sample.geo.eta.tolist()
    assert result["geo_entries"] == 1
    assert json.loads(result["metadata"]) == sample.metadata
