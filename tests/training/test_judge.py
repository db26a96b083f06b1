"""What a contract tells of a model's worth is measured again, and a difference is seen."""

from __future__ import annotations

import shutil

import pytest
from factories import make_sample

from pfcalib.deploy.contract import read_contract, seal_of
from pfcalib.deploy.examination import FAILED, OPEN, PASSED
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.roc import auc
from pfcalib.samples.schema import is_em
from pfcalib.samples.write import write_sample
from pfcalib.training.friend import FOLDER, open_model
from pfcalib.training.judge import check_physics, judge_model, write_physics
from pfcalib.training.networks import SELECTION


@pytest.fixture
def classifier(tmp_path):
    for file in FOLDER.glob("small-classifier.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "small-classifier.onnx"


def test_a_model_is_measured_and_its_contract_sealed_anew(classifier, rng):
    sample, file = make_sample(rng, 400), classifier.with_name("toy.root")
    write_sample(file, sample)
    measured = judge_model(classifier, file)
    kept = sample[SELECTION.mask(sample.scalars)]
    p_em = open_model(classifier).answer(kept)["p_em"]
    assert measured == {"auc": pytest.approx(auc(p_em, is_em(kept["truthPdgId"])))}
    assert measured["auc"].value > 0.5
    assert check_physics(classifier, measured).verdict == OPEN  # nothing is told yet
    write_physics(classifier, measured)
    contract = read_contract(classifier)
    assert contract.seal == seal_of(contract)
    assert check_physics(classifier, measured).verdict == PASSED


def test_another_worth_than_the_contract_tells_is_found(classifier):
    write_physics(classifier, {"auc": Estimate(0.99, 0.001)})
    other = check_physics(classifier, {"auc": Estimate(0.9, 0.01)})
    assert other.verdict == FAILED
    assert "auc of the contract is 0.9900" in other.told


def test_classes_that_are_swapped_are_found_without_any_contract(classifier):
    swapped = check_physics(classifier, {"auc": Estimate(0.1, 0.01)})
    assert swapped.verdict == FAILED
    assert "the wrong way round" in swapped.told
