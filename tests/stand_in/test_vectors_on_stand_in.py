"""The conformance vectors, answered by the model on the stand-in for CuPy."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from stand_in.cupy_stand_in import installed
from stand_in.kernel_twins import register
from stand_in.running import fetched

import led_backends
from led_ref.oracle.vectors.ask_led_ref import LedRef
from led_ref.oracle.vectors.format import read_suite
from led_ref.oracle.vectors.judge import FAILED, verdicts

FOLDER = Path(__file__).parent.parent / "vectors" / "v1"
# Of the search and the tokenizer no part runs on a device.
LEVELS = ("L1", "L2", "L3", "L4", "L6", "L8")


class OnDevice(LedRef):
    """led_ref's answers, computed on the stand-in: what a case holds goes there, what comes out is fetched."""

    def __init__(self, suite, dtype):
        super().__init__(suite, dtype)
        self.backend = led_backends.get("cupy")

    def operation(self, name):
        compute = super().operation(name)
        return lambda case: {name: fetched(array) for name, array in compute(case).items()}

    def floats(self, case, name):
        return self.backend.to_device(super().floats(case, name))

    def _softmax(self, case):
        scores = self.floats(case, "scores")
        self.backend.hide(scores, self.backend.to_device(case.inputs["may_look"] == 1))
        return {"y": self.backend.softmax(scores)}

    def _full(self, case):
        """By the backend's own operation: the CPU's answer goes through the decoder's layer."""
        q_HUK, k_HSK, v_HSK = (self.floats(case, name) for name in "qkv")
        q_HUK *= self.dtype.type(q_HUK.shape[-1] ** -0.5)
        may_look_1US = self.backend.to_device(case.inputs["may_look"][None] == 1)
        out_1HUK = self.backend.attend(q_HUK[None], k_HSK[None], v_HSK[None], may_look_1US)
        return {"out": out_1HUK[0].swapaxes(0, 1).reshape(q_HUK.shape[1], -1)}

    def _corner(self, case):
        """A few rows of each output, chosen on the host."""
        model = self.model(case)
        with mock.patch.object(self, "model", return_value=lambda **given: model(**given).to_numpy()):
            return super()._corner(case)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stand_in_passes_vectors(dtype):
    register()
    with installed():
        suite = read_suite(FOLDER, levels=LEVELS)
        found = list(verdicts(suite.cases, OnDevice(suite, dtype).answer, dtype))
    assert [(v.case.id, v.reason) for v in found if v.status == FAILED] == []
    assert len(found) > 60
    assert {v.case.level for v in found} == set(LEVELS)
    assert np.isfinite([v.used for v in found if v.used is not None]).all()
