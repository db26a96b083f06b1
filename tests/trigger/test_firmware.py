"""What hls4ml computes is what whole numbers give, bit by bit."""

import shutil

import keras
import numpy as np
import pytest

from pfcalib.trigger.cicada import (
    StudentConfig,
    build_student,
    fixed_formats,
    round_student,
    student_in_integers,
)
from pfcalib.trigger.firmware import write_firmware

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_logic_of_a_student_says_what_whole_numbers_say(tmp_path, rng):
    pytest.importorskip("hls4ml")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    keras.utils.set_random_seed(3)
    config = StudentConfig(filters=4)
    student = build_student(config)
    images = rng.poisson(rng.exponential(6.0, (200, 18, 14))).astype(np.uint16)
    student.get_layer("dense").bias.assign(rng.normal(0.0, 3.0, config.width))
    student.get_layer("last").kernel.assign(8.0 * student.get_layer("last").kernel)
    formats = fixed_formats(student, images)
    expected = student_in_integers(round_student(student, config, formats)).values(images)
    logic = write_firmware(student, formats, tmp_path / "student")
    logic.compile()
    found = logic.predict(images.astype(np.float32))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert len(np.unique(expected)) > 50
