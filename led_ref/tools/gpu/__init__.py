"""What `led-ref doctor --gpu` checks on a GPU."""
