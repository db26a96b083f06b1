"""Networks with both heads see the same clusters as images, as points and as the truth tells."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.clouds import cluster_clouds
from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.samples.read import read_sample
from pfcalib.samples.write import write_sample
from pfcalib.training.both_heads import (
    HEAD,
    TARGET,
    cloud_config,
    cloud_data,
    flat_classifier,
    image_config,
    split_output,
)
from pfcalib.training.networks import open_stream
from pfcalib.training.regressors import read_clusters


def test_points_answers_and_moments_belong_to_the_clusters_that_images_show(tmp_path, rng):
    path = tmp_path / "sample.root"
    write_sample(path, make_sample(rng, 400))
    clusters = read_clusters(path, split="train")
    every = cluster_clouds(read_sample(path))
    data = cloud_data(every, clusters)
    n = np.diff(every.offsets)
    np.testing.assert_array_equal(np.diff(data.clouds.offsets), n[clusters.rows])
    stream = open_stream(path, image_config("cnn", epochs=1, seed=1), split="train")
    inputs, answers = stream[0][:2]
    np.testing.assert_allclose(data.more["moments"], inputs["moments"], rtol=1e-6)
    np.testing.assert_allclose(data.answers, answers, rtol=1e-6)
    assert data.more["moments"].shape == (len(clusters.rows), len(MOMENT_COLUMNS))


def test_an_output_is_class_and_energy():
    energy, e_em = np.array([3.0, 5.0]), np.array([2.0, 6.0])
    output = np.column_stack([[0.9, 0.2], [0.1, 0.8], TARGET.encode(energy, e_em)])
    p_em, said = split_output(output, e_em)
    np.testing.assert_array_equal(p_em, [0.1, 0.8])
    np.testing.assert_allclose(said, energy)


def test_all_learn_by_one_loss_and_the_flat_one_sees_pixels_alone():
    image = image_config("densenet", epochs=3, seed=2, train={"batch_size": 7})
    points = cloud_config(
        "graph", epochs=3, seed=2, learning_rate=1e-3, batch_size=7, n_points=16, moments=False
    )
    for field in ("loss", "energy_weight", "huber_delta", "epochs", "batch_size", "seed"):
        assert getattr(image.train, field) == getattr(points.train, field)
    assert image.train.loss == image.head == points.options["head"] == HEAD
    assert image.with_moments
    assert not points.options["with_moments"]
    flat = flat_classifier({"widths": [936, 936, 468]}, epochs=2, seed=1)
    assert (flat.head, flat.with_moments, flat.target) == ("classes", False, None)
    with pytest.raises(TypeError):
        image_config("cnn", seed=1)
