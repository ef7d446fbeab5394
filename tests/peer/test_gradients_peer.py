"""Loss and gradients of every parameter against torch's autograd of transformers 5.23: 60 random LEDs, three heads."""

from unittest import mock

import numpy as np
import pytest
from gradient_cases import Case, draw_case, their_gradients

from led_backends.numpy_backend import NumpyBackend
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.training import loss_and_gradients
from led_ref.training.gradients import GradientOptions
from led_ref.weights.keys import FINAL_LOGITS_BIAS, arrays_by_key, heads_of

pytestmark = pytest.mark.peer

RELATIVE = 1e-10


@pytest.fixture(autouse=True)
def small_blocks(request):
    """In two of three cases: blocks so small that targets, feed-forwards and attention have several, the last one shorter."""
    if request.node.callspec.params["seed"] % 3 == 0:
        yield
        return
    with (
        mock.patch.object(NumpyBackend, "queries_per_block", 5),
        mock.patch("led_backends.numpy_backend.BLOCK_ROWS", 7),
        mock.patch("led_ref.model.losses.LOGIT_ROWS", 3),
        mock.patch("led_ref.model.ops.FEED_FORWARD_ROWS", 9),
        mock.patch("led_ref.model.losses.SOFTMAX_ROWS", 2),
    ):
        yield


def compare(worst, case: Case, line: str, theirs, ours) -> None:
    """Relative to a tensor's largest number; to the model's where all are 0 but for rounding (biases of keys)."""
    (their_loss, their_arrays), (loss, params) = theirs, ours
    arrays = arrays_by_key(params, case.config, heads_of(case.ours().architecture))
    names = their_arrays.keys()
    assert names <= arrays.keys()
    assert {key for key in arrays.keys() - names if arrays[key].any()} <= {"lm_head.weight"}
    assert not arrays.get(FINAL_LOGITS_BIAS, np.zeros(1)).any()
    worst.compare(f"{line}: loss", np.array(loss.mean / their_loss), np.array(1.0), RELATIVE)
    whole = max(np.abs(array).max() for array in their_arrays.values())
    for name, their in their_arrays.items():
        largest = np.abs(their).max()
        scale = largest if largest > 1e-5 * whole else whole
        worst.compare(f"{line}: gradients", arrays[name] / scale, their / scale, RELATIVE, (name, case.config))


@pytest.mark.parametrize("seed", range(60))
def test_gradients_equal_autograd(worst, seed):
    case = draw_case(seed)
    options = GradientOptions(label_smoothing=case.smoothing, documents_at_once=1 + seed % 2 * 2)
    ours = loss_and_gradients(case.ours(), case.batch, options)
    compare(worst, case, f"{case.head}", their_gradients(case), ours)


@pytest.mark.parametrize("seed", range(100, 130))
def test_gradients_with_dropout_equal_autograd(worst, seed):
    """The same masks on both sides: every site of every layer, layers left out."""
    case = draw_case(seed)
    rates = DropoutRates(0.3, 0.25, 0.2, 0.4, encoder_layerdrop=0.2, decoder_layerdrop=0.2)
    dropout = Dropout(rates, seed=seed, step=3, documents=range(7, 7 + len(case.batch["input_ids"])))
    options = GradientOptions(dropout, case.smoothing, documents_at_once=1 + seed % 2 * 2)
    ours = loss_and_gradients(case.ours(), case.batch, options)
    compare(worst, case, f"{case.head}, dropout", their_gradients(case, dropout), ours)
