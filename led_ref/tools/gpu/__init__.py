"""What `led-ref doctor --gpu` checks and measures on a GPU."""
