"""Where one can listen in: the model calls a tap with each named intermediate, and the tap decides what to do with it.

The default hears nothing. `forward(output_attentions=True)` and `output_hidden_states=True` listen for those; a trace
listens to everything. So there is one forward pass, not one that computes and others that also show:

    tap("query.output", q_BTD)                  tell
    if tap.wants("probs"): ...                  ask first, where telling would cost something
    tap.at("layers.0.self_attn")                the same listener, one module further in

A name is the checkpoint's path of the module and a role. The role `output` is what the module returns, which is also what
a forward hook on the module of that name sees in PyTorch.
"""

from collections.abc import Callable

from led_backends.contract import Array


class Tap:
    """A listener. This one, the silent one, hears nothing; `ListeningTap` does."""

    def __call__(self, role: str, value: Array) -> None:
        """Tell the value of a role of the present module. The value may be overwritten afterwards: copy what you keep."""

    def wants(self, role: str) -> bool:
        """Whether it is worth computing that role."""
        return False

    def at(self, module: str) -> "Tap":
        """The tap of a module inside the present one."""
        return self


SILENT = Tap()


class ListeningTap(Tap):
    """Hands what is told to a function, by full name.

    Args:
        hear: called with (name, value) of everything that is wanted.
        wanted: which full names are; None: all.
        path: the present module.
    """

    def __init__(
        self, hear: Callable[[str, Array], None], wanted: Callable[[str], bool] | None = None, path: str = ""
    ) -> None:
        self.hear = hear
        self.wanted = wanted
        self.path = path

    def __call__(self, role: str, value: Array) -> None:
        """Hand on the value, if it is wanted."""
        if self.wants(role):
            self.hear(self._name(role), value)

    def wants(self, role: str) -> bool:
        """Whether the full name is wanted."""
        return self.wanted is None or self.wanted(self._name(role))

    def at(self, module: str) -> "ListeningTap":
        """The same listener at a module inside."""
        return ListeningTap(self.hear, self.wanted, self._name(module))

    def _name(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def keep(suffixes: tuple[str, ...], kept: dict[str, Array], also: Tap) -> Tap:
    """A tap that keeps what ends in one of the suffixes, by full name, in `kept`, and hands everything on to `also`.

    Args:
        suffixes: ends of names; none: the result is `also` itself.
        kept: is filled, in the order in which the model computes.
        also: a tap that stands at the root.
    """
    if not suffixes:
        return also

    def hear(name: str, value: Array) -> None:
        if name.endswith(suffixes):
            kept[name] = value
        also(name, value)

    return ListeningTap(hear, lambda name: name.endswith(suffixes) or also.wants(name))


def tap_of_document(b: int, told: dict[str, dict[int, Array]], batch: Tap) -> Tap:
    """A tap for document b of a batch: it keeps copies of what it is told, `told[role][b]`, where `batch` wants the role."""
    return ListeningTap(lambda role, value: told.setdefault(role, {}).update({b: value.copy()}), batch.wants)
