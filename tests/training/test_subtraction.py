"""Events of the studies of particle flow."""

from __future__ import annotations

from pfcalib.training.subtraction import SubtractionConfig


def test_training_and_test_events_share_neither_collisions_nor_pile_up() -> None:
    config = SubtractionConfig(seed=3)
    test, train = (config.events(40.0, 100, train=train) for train in (False, True))
    assert test.seed != train.seed
    assert test.pool_config.seed != train.pool_config.seed
    assert config.events(40.0, 100, process="z_jet").pool_config == test.pool_config
