"""Each kernel of kernels.cu on drawn cases, in three schedules, against float64 within its derived bound (kernel_cases.py)."""

import itertools

import numpy as np
import pytest
from cuda_on_cpu import KERNELS_CU, SCHEDULES, TYPES, launch_bounds, load_kernels
from kernel_cases import DRAW, cases

SHAPES = 50


@pytest.fixture(scope="session")
def kernels():
    return load_kernels()


def test_every_kernel_is_drawn(kernels):
    for draw, stored in itertools.product(DRAW, TYPES):
        for case in cases(draw, stored, 1):
            case.run(kernels)
    assert {name.split("<")[0] for name in kernels.launches} == set(launch_bounds(KERNELS_CU.read_text("utf-8")))


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("kernel", DRAW)
def test_within_its_bound_in_every_schedule(kernels, kernel, stored):
    worst = 0.0
    for seed, case in enumerate(cases(kernel, stored, SHAPES)):
        results = []
        for order in SCHEDULES:
            # Reversed, arrays begin where forbidden memory ends; else they end where it begins.
            with kernels.schedule(order, seed=seed, at_end=order != "reversed"):
                found, off = case.run(kernels)
            place = np.unravel_index(off.argmax(), off.shape)
            assert off.max() <= 1, f"seed {seed}, {order}: {off.max():.3g} bounds off at {place}; {case.what}"
            results.append(found.tobytes())
            worst = max(worst, off.max())
        assert len(set(results)) == 1, f"seed {seed}: the result hangs on the schedule; {case.what}"
    assert worst > 0.01, "a bound that is never neared is no bound"
