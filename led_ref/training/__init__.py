"""Training: the loss of a batch, its gradients by hand-written backward passes, and the steps that follow them."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.training.batch import Batch
    from led_ref.training.gradients import accumulate_gradients, loss_and_gradients

__all__ = ["Batch", "accumulate_gradients", "loss_and_gradients"]

__getattr__, __dir__ = hand_on(
    __name__, {"batch": ("Batch",), "gradients": ("accumulate_gradients", "loss_and_gradients")}
)
