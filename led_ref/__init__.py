"""led_ref: LED (Longformer-Encoder-Decoder) spelled out in NumPy, to be read, run and trusted."""

__version__ = "0.1.0"
