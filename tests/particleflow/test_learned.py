"""What tracks take by a network of shares never exceeds a cell, and stays when an event is turned
or shuffled; files that do not fit are refused. The networks are untrained: none of this is physics.
"""

import json
import shutil

import keras
import numpy as np
import pytest
from particleflow.flow_toys import CHARGED, moved, order_within, overlap, shuffled
from particleflow.hand_made import CELLS, random_event, sets_of, share_deposit

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ValidationError
from pfcalib.models.cell_shares import SharesConfig, build_cell_shares
from pfcalib.particleflow.deposit import table_deposit
from pfcalib.particleflow.event import MatchedSets
from pfcalib.particleflow.learned import open_learned
from pfcalib.particleflow.match import FlowConfig, match, matching
from pfcalib.particleflow.methods import build_method
from pfcalib.particleflow.surroundings import BUILDERS, INPUT_SHAPES, KIND, MEANINGS

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TABLE = EoverPTable.load()


def event_with_sets(seed=1):
    event = random_event(np.random.default_rng(seed), n_clusters=12, n_tracks=6)
    return event, match(event, CELLS, share_deposit(0.6, 0.2), FlowConfig()).sets


@pytest.fixture(scope="module", params=BUILDERS)
def path(request, tmp_path_factory):
    form = request.param
    keras.utils.set_random_seed(1)
    model = build_cell_shares(INPUT_SHAPES[form], SharesConfig(form=form, width=8))
    target = tmp_path_factory.mktemp(form) / "shares.onnx"
    inputs = BUILDERS[form](event_with_sets()[0], CELLS, event_with_sets()[1]).inputs
    more = {"kind": f"{KIND}{form}", "normalisation": MEANINGS[form]}
    export_onnx(model, target, inputs=inputs, **more)
    return target


def test_the_file_computes_what_keras_did(path):
    assert check_stored_model(path).passed


def test_a_track_takes_a_part_of_each_cell_with_its_sign(path):
    event, sets = event_with_sets()
    removed, energy = open_learned(path)(event, CELLS, sets), event.clusters.cell_energy[sets.entry]
    assert removed.dtype == np.float64
    assert np.any(energy < 0.0)
    assert np.any(removed != 0.0)
    assert np.all(removed * energy >= 0.0)
    taken = np.bincount(sets.entry, np.abs(removed), len(event.clusters.cell))
    assert np.all(taken <= np.abs(event.clusters.cell_energy) * (1 + 1e-9))


def test_several_tracks_never_take_more_than_a_cell_holds(path, rng):
    """Untrained networks give each of them about half of every cell."""
    event, sets = overlap(rng, 1, pdg_ids=(CHARGED,) * 4)
    removed = open_learned(path)(event, CELLS, sets).reshape(4, -1)
    share = removed.sum(axis=0) / event.clusters.cell_energy
    assert share.max() == pytest.approx(1.0, abs=1e-9)
    alone = sets_of([sets.track[0]], [range(len(share))], sets.mean[:1], sets.sigma[:1])
    assert np.any(open_learned(path)(event, CELLS, alone) > removed[0] + 1e-3)


def test_an_event_that_is_turned_gives_the_same(path, rng):
    event, sets = event_with_sets()
    learned = open_learned(path)
    before = learned(event, CELLS, sets)
    for towers in (1, 31, 32, 50):
        found = learned(moved(event, towers=towers), CELLS, sets)
        np.testing.assert_allclose(found, before, atol=2e-5)
    order = order_within(rng, sets)
    found = learned(event, CELLS, shuffled(sets, order))
    np.testing.assert_allclose(found, before[order], atol=2e-5)


def test_more_sets_than_a_call_takes_are_not_mixed_up(path, rng):
    event, sets = overlap(rng, 1, pdg_ids=(CHARGED,) * 3)
    many, n = 70, len(event.clusters.cell)
    columns = {name: np.tile(column, many) for name, column in sets._asdict().items()}
    repeated = MatchedSets(**columns | {"offsets": n * np.arange(3 * many + 1)})
    found = open_learned(path)(event, CELLS, repeated).reshape(many, 3, n)
    np.testing.assert_allclose(found, np.broadcast_to(found[:1], found.shape), atol=1e-5)
    assert np.abs(found[0, 0] - found[0, 1]).max() > 1e-5


def test_events_without_sets_and_sets_without_cells(path):
    event, _ = event_with_sets()
    learned = open_learned(path)
    assert learned(event, CELLS, sets_of([], [], [], [])).shape == (0,)
    assert learned(event, CELLS, sets_of([0, 1], [[], []], [1.0, 1.0], [1.0, 1.0])).shape == (0,)
    some = learned(event, CELLS, sets_of([0, 1], [[], [0]], [1.0, 1.0], [1.0, 1.0]))
    assert some.shape == (1,)
    assert np.isfinite(some).all()


@pytest.mark.parametrize(("training", "cone"), [({"cone": 0.2}, 0.2), ({"cone": 0}, 0.0)])
def test_the_contract_tells_which_cells_tracks_are_given(path, training, cone, tmp_path):
    copy = with_contract(path, {"training": training}, tmp_path)
    event, _ = event_with_sets()
    found = build_method("learned", table=TABLE, shares=copy).match(event, CELLS)
    expected = matching(table_deposit(TABLE), FlowConfig(), cone=cone)(event, CELLS)
    assert found.sets.entry.tolist() == expected.sets.entry.tolist()
    assert (found.cluster >= 0).any() == (cone == 0.0)


def test_a_contract_that_does_not_tell_the_cells_is_refused(path):
    with pytest.raises(ValidationError, match="training: cone"):
        build_method("learned", table=TABLE, shares=path)


def with_contract(path, change, folder):
    """A copy of a network with another contract."""
    for file in path.parent.iterdir():
        shutil.copy(file, folder)
    copy = folder / path.name
    contract = json.loads(contract_path(copy).read_text("utf-8")) | change
    contract_path(copy).write_text(json.dumps(contract), encoding="utf-8")
    return copy


def test_a_cell_that_is_not_a_number_is_refused_with_its_event(path):
    event, sets = event_with_sets()
    event.clusters.cell_energy[sets.entry[0]] = np.nan
    with pytest.raises(ValidationError, match="event 1: energy of a cell"):
        open_learned(path)(event, CELLS, sets)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "flat"}, "expected a network of shares"),
        ({"normalisation": "other features"}, "'other features'"),
        ({"sha256": "0" * 64}, "sha256 differs"),
    ],
)
def test_another_file_is_refused(path, change, told, tmp_path):
    with pytest.raises(ValidationError, match=told):
        open_learned(with_contract(path, change, tmp_path))
