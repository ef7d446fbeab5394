"""One small program to write for each chapter of the book: `led-ref exercise 4` hands out that of chapter 4, and checks it.

Each file e*.py is one exercise, kept solved: what it asks in its docstring, the functions to write, and `check_...` functions
that a reader's file is put through. `handout.py` cuts the solutions out to make what the reader gets, and runs the checks.
The expected numbers are not written down here: they come from led_ref's own model, definition and cost model, or from a
property that they must have.
"""
