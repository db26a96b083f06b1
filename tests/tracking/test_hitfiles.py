"""Files of hits that users own: a round trip of each kind, and errors that say what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import uproot

from pfcalib.errors import BadFileError
from pfcalib.tracking.barrelhits import BarrelConfig, simulate_barrel_events
from pfcalib.tracking.hitfiles import read_hits, read_trackml

BIG = 4_503_668_346_847_232  # particle numbers of TrackML do not fit into a float of 32 bits


@pytest.fixture(scope="module")
def hits():
    return simulate_barrel_events(BarrelConfig(n_events=1, n_tracks=5, chunk=1), 0).event(0)


def write_trackml(folder, hits, *, lost=0):
    volume, layer = 8 + hits.layer // 4, 2 * (hits.layer % 4 + 1)
    lines = [
        f"{i + 1},{x},{y},{z},{v},{a},7"
        for i, ((x, y, z), v, a) in enumerate(zip(hits.position, volume, layer, strict=True))
    ]
    text = "\n".join(["hit_id,x,y,z,volume_id,layer_id,module_id", *lines])
    (folder / "event000001000-hits.csv").write_text(text + "\n")
    truth = [
        f"{i + 1},{BIG + 3 * int(p) if p >= 0 else 0},0.1,0.1,0.1,0.5,0.5,1.0,1e-6"
        for i, p in enumerate(hits.particle)
    ][::-1]
    head = "hit_id,particle_id,tx,ty,tz,tpx,tpy,tpz,weight"
    rows = truth[: len(truth) - lost]
    (folder / "event000001000-truth.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder / "event000001000"


def assert_same(found, hits):
    assert found.position == pytest.approx(hits.position, rel=1e-6)
    np.testing.assert_array_equal(found.layer, hits.layer)
    np.testing.assert_array_equal(found.particle, hits.particle)


def test_an_event_of_trackml_is_read_with_its_truth_in_any_order(hits, tmp_path):
    assert_same(read_trackml(write_trackml(tmp_path, hits)), hits)
    (tmp_path / "event000001000-truth.csv").unlink()
    assert (read_trackml(tmp_path / "event000001000").particle == -1).all()


def test_truth_of_another_event_is_refused(hits, tmp_path):
    with pytest.raises(BadFileError, match="one row for each hit"):
        read_trackml(write_trackml(tmp_path, hits, lost=1))


def test_tables_in_root_in_csv_and_in_columns_give_the_same_hits(hits, tmp_path):
    x, y, z = hits.position.T
    columns = {"x": x, "y": y, "z": z, "layer": hits.layer, "pid": hits.particle + 1}
    names = {"particle": "pid"}
    with uproot.recreate(tmp_path / "hits.root") as file:
        file["hits"] = columns
    text = [
        "x,y,z,layer,pid",
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / "hits.csv").write_text("\n".join(text) + "\n")
    for source in (tmp_path / "hits.root", tmp_path / "hits.csv", columns):
        assert_same(read_hits(source, names=names), hits)
    assert (read_hits(columns).particle == -1).all()


def test_what_is_missing_is_named(hits, tmp_path):
    x, y, _ = hits.position.T
    with pytest.raises(BadFileError, match="no column 'z'; it has x, y, layer"):
        read_hits({"x": x, "y": y, "layer": hits.layer})
    with pytest.raises(BadFileError, match="'layer' must hold one number"):
        read_hits({"x": x, "y": y, "z": y, "layer": hits.layer[:-1]})
    (tmp_path / "hits.csv").write_text("x,y\n1,2\n")
    with pytest.raises(BadFileError, match=r"hits\.csv: no column 'z'"):
        read_hits(tmp_path / "hits.csv")
    (tmp_path / "bad.csv").write_text("x,y,z,layer\n1,2,3,a\n")
    with pytest.raises(BadFileError, match="not a table of numbers"):
        read_hits(tmp_path / "bad.csv")
    with pytest.raises(BadFileError, match=r"none\.root: no such file"):
        read_hits(tmp_path / "none.root")
    with pytest.raises(BadFileError, match=r"event-hits\.csv"):
        read_trackml(tmp_path / "event")
