"""Each kernel of kernels.cu on drawn cases, in three schedules, against float64 within its derived bound (kernel_cases.py)."""

import itertools

import pytest
from cuda_on_cpu import KERNELS_CU, TYPES, launch_bounds, load_kernels
from kernel_cases import DRAW, cases, judge

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
def test_error_bound_in_every_schedule(kernels, kernel, stored):
    worst = max(judge(kernels, case, seed) for seed, case in enumerate(cases(kernel, stored, SHAPES)))
    assert worst > 0.01, "a bound that is never neared is no bound"
