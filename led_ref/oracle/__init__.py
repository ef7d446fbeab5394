"""What judges led_ref: `dense.py`, LED by definition, which shares no code with the model."""
