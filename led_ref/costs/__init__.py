"""What a run costs, before it: multiplications, bytes moved, memory (operations.py, memory.py, device_memory.py)."""
