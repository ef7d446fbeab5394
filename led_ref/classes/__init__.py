"""The classes, named as in transformers: configuration, weights and a backend held together; inputs checked; outputs named."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.classes.led import LEDEncoder
    from led_ref.classes.pretrained import LEDPreTrainedModel

__all__ = ["LEDEncoder", "LEDPreTrainedModel"]

__getattr__, __dir__ = hand_on(__name__, {"led": ("LEDEncoder",), "pretrained": ("LEDPreTrainedModel",)})
