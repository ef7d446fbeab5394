"""`led-ref bench`: time and memory of led_ref, and of transformers beside it, measured in turns."""
