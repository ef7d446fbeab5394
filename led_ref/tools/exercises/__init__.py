"""One small program to write for each chapter of the book: `led-ref exercise 4` hands out that of chapter 4, and checks it.

Each file e*.py is one exercise with its solution: the task in its docstring, the functions to write, and `check_...` functions
that test a reader's file. `handout.py` removes the solutions to make the reader's file, and runs the checks. The expected
numbers are not written down here: they come from led_ref's own model, definition and cost model, or from a known property.
"""
