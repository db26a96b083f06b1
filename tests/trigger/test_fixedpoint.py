"""Fixed-point numbers: formats as ap_fixed has them, networks bit by bit as plain integers."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.trigger.cicada import (
    Bits,
    StudentConfig,
    anomaly,
    build_student,
    fixed_formats,
    network_inputs,
    round_student,
    student_in_integers,
)
from pfcalib.trigger.fixedpoint import (
    FLATTEN,
    OVERFLOWS,
    ROUNDINGS,
    SUM_ROWS,
    Fixed,
    fitted,
    round_through,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def exact(value, form):
    """A number in a format by fractions."""
    scaled = Fraction(value) * Fraction(2) ** form.fraction
    below = scaled.numerator // scaled.denominator
    rest = scaled - below
    half = Fraction(1, 2)
    up = {
        "TRN": False, "RND": rest >= half,
        "RND_CONV": rest > half or (rest == half and below % 2 == 1),
    }[form.rounding]  # fmt: skip
    number, (low, high) = below + up, form.limits
    if form.overflow == "SAT":
        return min(max(number, low), high)
    return (number - low) % (1 << form.width) + low


FORMS = st.builds(
    Fixed, st.integers(2, 16), st.integers(-4, 12), st.booleans(), st.sampled_from(ROUNDINGS),
    st.sampled_from(OVERFLOWS),
)  # fmt: skip


@given(FORMS, st.floats(-1e4, 1e4))
def test_numbers_of_a_format_are_those_of_exact_fractions(form, value):
    assert form.integers(value) == exact(value, form)


@given(FORMS, st.integers(-(10**6), 10**6), st.integers(-4, 20))
def test_a_change_of_format_is_exact(form, number, fraction):
    value = Fraction(number) / Fraction(2) ** fraction
    assert form.rescaled(np.int64(number), fraction) == exact(value, form)


def test_known_numbers_of_ap_fixed():
    # UG1399: -1.25 and 1.25 with one bit behind the point
    for rounding, low, high in (("RND", -1.0, 1.5), ("RND_CONV", -1.0, 1.0), ("TRN", -1.5, 1.0)):
        form = Fixed(4, 3, True, rounding)
        assert form.values(form.integers([-1.25, 1.25])).tolist() == [low, high]
    assert Fixed(4, 4, overflow="WRAP").integers([19.0, -19.0]).tolist() == [3, -3]
    assert Fixed(4, 4, False).integers([19.0, -19.0]).tolist() == [15, 0]


@given(st.floats(1e-4, 1e4), st.integers(4, 16), st.booleans())
def test_a_fitted_format_holds_its_values_and_one_bit_less_does_not(largest, width, signed):
    form = fitted([largest, 0.3 * largest], width, signed=signed)
    step = 2.0**-form.fraction
    assert abs(float(form.values(form.integers(largest))) - largest) <= 0.5 * step
    less = Fixed(width, form.integer - 1, signed)
    assert float(less.values(less.integers(largest))) < largest - 0.25 * step


def test_formats_that_mean_nothing_are_refused():
    for wrong in ((1, 1), (8, 90), (8, 2, True, "UP")):
        with pytest.raises(ConfigError, match="expected"):
            Fixed(*wrong)
    with pytest.raises(ConfigError, match="RND and SAT"):
        round_through(1.0, Fixed(8, 2, rounding="TRN"))


def by_hand(network, image):
    """One image through a network, by Python's own integers and fractions."""
    form = network.inputs
    x = [[[exact(int(value), form)] for value in row] for row in image]  # row, column, channel
    for step in network.steps:
        if step == FLATTEN:
            x = [[[v for row in x for cell in row for v in cell]]]
        elif step == SUM_ROWS:
            x = [[[sum(column) for column in zip(*cells, strict=True)]
                  for cells in zip(*x, strict=True)]]  # fmt: skip
        else:
            size = step.kernel.shape[0] if step.kernel.ndim == 4 else 1
            kernel = step.kernel.reshape(-1, step.kernel.shape[-1])
            scale = Fraction(2) ** -(form.fraction + step.form.fraction)
            bias = Fraction(2) ** -step.bias_form.fraction
            made = []
            for i in range(0, len(x), size):
                made.append([])
                for j in range(0, len(x[0]), size):
                    seen = [v for a in range(size) for b in range(size) for v in x[i + a][j + b]]
                    totals = [
                        sum(v * int(w) for v, w in zip(seen, column, strict=True))
                        for column in kernel.T
                    ]
                    made[-1].append(
                        [
                            exact(t * scale + int(shift) * bias, step.output)
                            for t, shift in zip(totals, step.bias, strict=True)
                        ]
                    )
            x, form = made, step.output
    return x[0][0]


@pytest.mark.parametrize(("filters", "mixed"), [(0, 0), (4, 0), (4, 6)])
def test_a_student_in_integers_is_what_slow_integers_and_keras_give(filters, mixed, rng):
    keras.utils.set_random_seed(3)
    config = StudentConfig(filters=filters, mixed=mixed)
    student = build_student(config)
    images = rng.poisson(rng.exponential(6.0, (200, 18, 14))).astype(np.uint16)
    images[0] = 1023
    scale = 60.0 / np.abs(predict(student, network_inputs(images[1:]))).mean() / 256.0
    last = student.get_layer("last")
    last.kernel.assign(last.kernel * scale)
    for name in ("mix", "dense") if mixed else ("dense",):
        bias = student.get_layer(name).bias
        bias.assign(rng.normal(0.0, 3.0, bias.shape))
    distances = []
    for width in (5, 8, 16):
        formats = fixed_formats(student, images[1:], Bits(width, width, width + 2, width + 4))
        rounded = round_student(student, config, formats)
        network = student_in_integers(rounded)
        whole = network.integers(images)
        assert [by_hand(network, image) for image in images[:12]] == whole[:12].tolist()
        # single precision does not hold all sums of 16 bits times 18
        off = np.abs(network.values(images)[:, 0] - anomaly(rounded, images))
        assert off.max() <= (2.0**-7 if width == 16 else 0.0)
        exact_student = np.clip(anomaly(student, images[1:]), 0.0, 255.99)
        distances.append(np.mean(np.abs(network.values(images[1:])[:, 0] - exact_student)))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.05
    assert len(np.unique(whole)) > 10


def test_gradients_pass_the_rounding_inside_the_format_only():
    import tensorflow as tf

    x = tf.constant([0.3, 5.0, -1.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = round_through(x, Fixed(6, 2, signed=False))
    np.testing.assert_allclose(y, [0.3125, 3.9375, 0.0])
    np.testing.assert_allclose(tape.gradient(y, x), [1.0, 0.0, 0.0])
