"""Networks of shares learn which part of a cell a track left, and are found again."""

import dataclasses

import numpy as np
import pytest
from particleflow.flow_toys import CHARGED, NEUTRAL, overlap, overlaps
from particleflow.hand_made import CELLS

from pfcalib.deploy.contract import read_contract
from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.models.cell_shares import SharesConfig
from pfcalib.particleflow.learned import open_learned
from pfcalib.particleflow.surroundings import BUILDERS, KIND, N_SLOTS, true_shares
from pfcalib.particleflow.truth import remove_truth
from pfcalib.samples.split import split_of
from pfcalib.training.fit import TrainConfig
from pfcalib.training.shares import (
    FRACTIONS,
    PILE_UP_PART,
    DrawnSets,
    SharesTraining,
    build_targets,
    fit_shares,
)

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS = ((CHARGED, NEUTRAL), (CHARGED,), (CHARGED, CHARGED))


N_EVENTS = 60  # of each kind


def training(form):
    train = TrainConfig(learning_rate=1e-2, batch_size=16, epochs=10, schedule="cosine_steps")
    return SharesTraining(network=SharesConfig(form=form), train=train)


def numbers(i):
    """Of the events of the kind i."""
    return range(N_EVENTS * i, N_EVENTS * (i + 1))


@pytest.fixture(scope="module", params=BUILDERS)
def trained(request, tmp_path_factory):
    config, folder = training(request.param), tmp_path_factory.mktemp(request.param)
    events = (pair for i, of in enumerate(KINDS) for pair in overlaps(i, numbers(i), pdg_ids=of))
    lines = []
    path = fit_shares(events, CELLS, config, inputs="toy", folder=folder, say=lines.append)
    return path, config, folder, lines


def test_shares_come_near_to_the_truth(trained):
    """Energy that is wrongly taken or left, over what tracks truly left: to take a part of every
    cell, the right one in all, is what one can do without looking.
    """
    learned = open_learned(trained[0])
    wrong = blind = size = 0.0
    for event, sets in overlaps(50, range(30)):
        truth = true_shares(event, sets) * event.clusters.cell_energy
        part = truth.sum() / event.clusters.cell_energy.sum()
        wrong += np.abs(learned(event, CELLS, sets) - truth).sum()
        blind += np.abs(part * event.clusters.cell_energy - truth).sum()
        size += np.abs(truth).sum()
    assert blind / size > 0.5
    assert wrong / size < 0.25


def test_what_the_track_left_is_found_better_than_its_mean_tells(trained):
    learned, by_network, by_mean = open_learned(trained[0]), [], []
    for event, sets in overlaps(60, range(30)):
        truth = remove_truth(event, CELLS, sets).sum()
        by_network.append(learned(event, CELLS, sets).sum() / truth - 1.0)
        by_mean.append(sets.mean[0] / truth - 1.0)
    assert np.std(by_network) < 0.75 * np.std(by_mean)
    assert abs(np.mean(by_network)) < 0.08


def test_a_track_alone_takes_nearly_all(trained):
    learned = open_learned(trained[0])
    taken = [
        learned(event, CELLS, sets).sum() / event.clusters.cell_energy.sum()
        for event, sets in overlaps(70, range(20), pdg_ids=(CHARGED,))
    ]
    assert np.mean(taken) > 0.95


def test_the_contract_tells_what_it_was_trained_on(trained):
    path, config, _, lines = trained
    contract = read_contract(path)
    assert contract.kind == f"{KIND}{config.network.form}"
    assert contract.training["inputs"] == "toy"
    assert contract.training["network"] == dataclasses.asdict(config.network)
    assert check_stored_model(path).passed
    n_train = sum(
        np.count_nonzero(split_of(numbers(i), fractions=FRACTIONS) == 0) * of.count(CHARGED)
        for i, of in enumerate(KINDS)
    )
    assert contract.training["n_sets"] == n_train
    assert any(f"{n_train} of {n_train} sets to train on" in line for line in lines)


def test_a_network_is_found_again_without_a_look_at_the_events(trained):
    path, config, folder, _ = trained
    nothing = iter(())
    assert fit_shares(nothing, CELLS, config, inputs="toy", folder=folder) == path
    with pytest.raises(ConfigError, match="no set of a track in the split train"):
        fit_shares(nothing, CELLS, config, inputs="other", folder=folder)


def test_events_of_the_test_split_are_never_looked_at(tmp_path):
    numbers = np.flatnonzero(split_of(range(200), fractions=FRACTIONS) == 2)
    events = [(event._replace(truth=None), sets) for event, sets in overlaps(1, numbers)]
    with pytest.raises(ConfigError, match="split train"):
        fit_shares(events, CELLS, training("points"), inputs="toy", folder=tmp_path)


def test_events_without_truth_are_refused(tmp_path):
    events = [(event._replace(truth=None), sets) for event, sets in overlaps(1, range(5))]
    with pytest.raises(ValidationError, match="no calibration truth"):
        fit_shares(events, CELLS, training("points"), inputs="toy", folder=tmp_path)


@pytest.mark.parametrize("form", BUILDERS)
def test_targets_keep_the_energy_that_the_track_left(form, rng):
    event, sets = overlap(rng, 1, pdg_ids=KINDS[2])
    slot = BUILDERS[form](event, CELLS, sets).slot
    share, energy = build_targets(event, sets, slot, N_SLOTS[form])
    assert share.min() >= 0.0
    assert share.max() <= 1.0
    size = np.abs(event.clusters.cell_energy[sets.entry]) * (slot >= 0)
    halves = np.arange(len(slot)).reshape(2, -1)
    left = size * true_shares(event, sets)
    np.testing.assert_allclose(energy.sum(axis=1), size[halves].sum(axis=1))
    np.testing.assert_allclose((energy * share).sum(axis=1), left[halves].sum(axis=1))


def test_cells_of_one_pixel_share_their_target_by_energy(rng):
    event, sets = overlap(rng, 1)
    slot = np.where(np.arange(len(sets.entry)) < 2, 5, -1)
    share, energy = build_targets(event, sets, slot, 7)
    size, true = np.abs(event.clusters.cell_energy[:2]), true_shares(event, sets)[:2]
    assert np.flatnonzero(energy[0]).tolist() == [5]
    assert share[0, 5] == pytest.approx(size @ true / size.sum())


def test_every_set_has_the_same_chance_to_be_drawn(rng):
    events = overlaps(1, range(10), pdg_ids=KINDS[2])
    seen = [BUILDERS["points"](event, CELLS, sets).inputs["track"] for event, sets in events]
    seen = np.concatenate(seen).astype(np.float16)
    counts = np.zeros(20)
    for _ in range(60):
        drawn = DrawnSets("points", 5, rng)
        for event, sets in events:
            drawn.add(event, CELLS, sets)
        same = (drawn.take()[0]["track"][:, None] == seen).all(axis=-1)
        assert same.sum(axis=1).tolist() == [1] * 5
        counts += same.sum(axis=0)
    assert counts.max() <= 60  # none twice at a time
    chi2 = ((counts - 15.0) ** 2 / (15.0 * 0.75)).sum()  # mean 19, width about 6
    assert chi2 < 40.0


def test_a_part_of_the_tracks_of_pile_up_stands_for_all(rng):
    """Energies of what is drawn sum to those of all; of the hard scattering all are drawn."""
    hard, pile_up = (DrawnSets("points", 3000, rng) for _ in range(2))
    for event, sets in overlaps(1, range(1000), pdg_ids=KINDS[1]):
        hard.add(event, CELLS, sets)
        tracks = event.tracks._replace(vertex=np.full_like(event.tracks.vertex, 3))
        pile_up.add(event._replace(tracks=tracks), CELLS, sets)
    n = PILE_UP_PART * 1000
    assert len(hard) == 1000
    assert abs(len(pile_up) - n) < 4.0 * np.sqrt(n)
    total = hard.take()[2].sum(dtype=float)
    assert pile_up.take()[2].sum(dtype=float) == pytest.approx(total, rel=0.4)


@pytest.mark.parametrize(
    "wrong", [{"max_sets": 0}, {"train": TrainConfig(loss="mse")}, {"cone": -0.1}]
)
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"SharesTraining: (max_sets|loss|cone)"):
        SharesTraining(**wrong)
