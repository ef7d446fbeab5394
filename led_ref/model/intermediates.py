"""Intermediates: the named arrays between a model's inputs and its outputs, and the recorder that receives them.

A name is the checkpoint's path of the module and a role. The role `output` is what a forward hook on that module sees in
PyTorch, `input` what a forward pre-hook sees; oracle/traces/step_names.py lists all names. hooks.py records them.
"""

from collections.abc import Callable

from led_backends.contract import Array


class Recorder:
    """Hands named intermediates to a function.

    Args:
        record: called with (name, value). The value may be overwritten later: copy it to keep it.
        wanted: which full names to record; None: all.
        path: the module that names are relative to.
    """

    def __init__(
        self, record: Callable[[str, Array], None], wanted: Callable[[str], bool] | None = None, path: str = ""
    ) -> None:
        self._record = record
        self._wanted = wanted
        self._path = path

    def __call__(self, name: str, value: Array) -> None:
        """Record a value, if it is wanted."""
        if self.wants(name):
            self._record(self._full(name), value)

    def wants(self, name: str) -> bool:
        """Whether a name is to be recorded."""
        return self._wanted is None or self._wanted(self._full(name))

    def at(self, module: str) -> "Recorder":
        """The same recorder for the names inside a module."""
        return Recorder(self._record, self._wanted, self._full(module))

    def _full(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def keep(suffixes: tuple[str, ...], kept: dict[str, Array], also: Recorder | None) -> Recorder:
    """A recorder that keeps in `kept` what ends in one of the suffixes, by full name, and passes everything on to `also`."""

    def record(name: str, value: Array) -> None:
        if name.endswith(suffixes):
            kept[name] = value
        if also is not None:
            also(name, value)

    return Recorder(record, lambda name: name.endswith(suffixes) or (also is not None and also.wants(name)))
