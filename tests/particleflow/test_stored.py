"""Objects come back from a file as they were made, and decisions made again are the first ones."""

import numpy as np
import pytest
import uproot
from particleflow.hand_made import CELLS, clusters_of, event_of, random_event, tracks_of

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.particleflow.deposit import table_deposit
from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.match import SUBTRACTED, UNSELECTED, FlowConfig, matching
from pfcalib.particleflow.methods import Method, build_method
from pfcalib.particleflow.stored import decide_again, read_stored, stored, write_objects
from pfcalib.particleflow.subtract import subtract_rings

TABLE = EoverPTable.load()
STRICTER = {
    "pt_max": {"pt_max": 3.0},
    "distance": {"max_distance": 0.4},
    "pt_min": {"pt_min": 2.0},
    "dense": {"dense_slope": 0.3},
}


def made(event, **cuts):
    return run_flow(event, CELLS, build_method("rings", table=TABLE, config=FlowConfig(**cuts)))


def assert_same(one, two, rtol=0.0):
    """Two stored events agree."""
    for part in ("tracks", "clusters", "neutrals", "links"):
        for name, values in getattr(one, part)._asdict().items():
            other = getattr(getattr(two, part), name)
            np.testing.assert_allclose(
                values, other, rtol=rtol, atol=rtol, err_msg=f"{part} {name}"
            )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of random events, with one that is empty, and the events."""
    rng = np.random.default_rng(5)
    events = [random_event(rng, n_clusters=n, n_tracks=2 * n) for n in (4, 0, 6, 2, 1)]
    path = tmp_path_factory.mktemp("flow") / "objects.root"
    n = write_objects(path, ((event, made(event)) for event in events), {"subtraction": "rings"})
    assert n == len(events)
    return path, events


def test_what_is_read_is_what_was_written(file):
    path, events = file
    read = list(read_stored(path))
    assert len(read) == len(events)
    for event, found in zip(events, read, strict=True):
        assert_same(found, stored(event, made(event)))


def test_the_file_is_a_plain_tree(file):
    with uproot.open(file[0]) as opened:
        assert opened["FlowTree"].classname == "TTree"
        assert opened["FlowTree/track_pt"].typename == "double[]"


def test_the_same_cuts_change_nothing(file):
    for event in read_stored(file[0]):
        assert_same(decide_again(event, FlowConfig()), event)


@pytest.mark.parametrize("cuts", STRICTER.values(), ids=STRICTER.keys())
def test_stricter_cuts_remade_are_stricter_cuts_made(cuts, rng):
    """Exact where no two tracks share a cluster: one track an event."""
    n_changed = 0
    for _ in range(60):
        event = random_event(rng, n_tracks=1)
        remade = decide_again(stored(event, made(event)), FlowConfig(**cuts))
        again = stored(event, made(event, **cuts))
        np.testing.assert_array_equal(remade.tracks.status, again.tracks.status)
        n_changed += int((remade.tracks.status != made(event).matches.status).sum())
        for name in ("energy", "eta", "phi"):
            np.testing.assert_allclose(
                getattr(remade.neutrals, name), getattr(again.neutrals, name), atol=1e-6
            )
    assert n_changed >= 3


def test_tracks_that_took_from_a_cone_keep_it_under_the_same_cuts(rng):
    method = Method(
        matching(table_deposit(TABLE), FlowConfig(), cone=0.2), subtract_rings(TABLE, 1.5)
    )
    event = random_event(rng)
    kept = stored(event, run_flow(event, CELLS, method))
    assert np.count_nonzero(kept.tracks.status == SUBTRACTED) >= 2
    assert_same(decide_again(kept, FlowConfig()), kept)
    harder = decide_again(kept, FlowConfig(pt_min=float(np.median(event.tracks.pt))))
    assert harder.neutrals.energy.sum() > kept.neutrals.energy.sum()


def test_a_looser_cut_is_refused(rng):
    event = event_of(
        tracks_of({"pt": 5.0, "eta": 0.01, "phi": 0.01}), clusters_of([(2, 0.01, 0.01, 5.0)])
    )
    kept = stored(event, made(event, pt_max=3.0))
    assert kept.tracks.status.tolist() == [UNSELECTED]
    with pytest.raises(ConfigError, match="event 1: track 0"):
        decide_again(
            kept._replace(
                tracks=stored(event, made(event)).tracks._replace(status=kept.tracks.status)
            ),
            FlowConfig(),
        )


def test_bad_files_are_refused_by_name(tmp_path, file):
    path = tmp_path / "other.root"
    with uproot.recreate(path) as opened:
        opened["FlowTree"] = {"eventNumber": np.arange(3)}
    with pytest.raises(BadFileError, match=r"other\.root: FlowTree has no branch weight"):
        list(read_stored(path))
    cut = tmp_path / "cut.root"
    cut.write_bytes(file[0].read_bytes()[:-200])
    with pytest.raises(BadFileError, match=r"cut\.root"):
        list(read_stored(cut))


def test_a_run_that_breaks_leaves_no_file(tmp_path, rng):
    def broken():
        event = random_event(rng)
        yield event, made(event)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_objects(tmp_path / "objects.root", broken(), {})
    assert list(tmp_path.iterdir()) == []
