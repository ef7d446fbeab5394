"""One small program to write for each chapter of the book: `led-ref exercise 4` hands out that of chapter 4, and checks it.

Each file e*.py is one exercise with its solution: the task in its docstring, the functions to write, and `check_...` functions
that test a reader's file. Expected numbers come from led_ref's own model, definition and costs, or from a known property.
"""
