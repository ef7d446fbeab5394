"""The chain rule by definition: a number remembers what it was computed from, and gradients go back the same way.

A Node is a float64 array and, for each array that it was computed from, the rule of the way back: what a change of the result
says of a change of that array. There is a rule for each of a dozen elementary operations (sum, product, exp, ...), one line
each; whatever is built of them has its gradient by the chain rule, and nothing else is derived. The rules themselves are
checked by central differences (gradients.py), and so is the whole LED that training.py builds of them.

    >>> x = Node([1.0, 2.0])
    >>> loss = total(x * x * x)
    >>> gradients(loss, {"x": x})["x"].tolist()
    [3.0, 12.0]

It remembers everything and frees nothing. The fast backward pass (led_ref/model) remembers nothing and is derived by hand,
so the two have no step in common.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WayBack = Callable[[Floats], Floats]  # d loss / d result -> d loss / d what it was computed from

_erf = np.frompyfunc(math.erf, 1, 1)


class Node:
    """An array, and what it was computed from.

    Args:
        value: the numbers.
        parents: the nodes that it was computed from, each with its rule of the way back.
    """

    __array_ufunc__ = None  # array * node is the node's business

    def __init__(self, value: Any, parents: Sequence[tuple["Node", WayBack]] = ()) -> None:
        self.value: Floats = np.asarray(value, np.float64)
        self.parents = parents

    def __add__(self, other: Any) -> "Node":
        a, b = self, as_node(other)
        return Node(a.value + b.value, [(a, lambda dy: _summed(dy, a)), (b, lambda dy: _summed(dy, b))])

    def __mul__(self, other: Any) -> "Node":
        a, b = self, as_node(other)
        back_a, back_b = (lambda dy: _summed(dy * b.value, a)), (lambda dy: _summed(dy * a.value, b))
        return Node(a.value * b.value, [(a, back_a), (b, back_b)])

    def __matmul__(self, other: "Node") -> "Node":
        a, b = self, other
        return Node(a.value @ b.value, [(a, lambda dy: dy @ b.value.T), (b, lambda dy: a.value.T @ dy)])

    def __sub__(self, other: Any) -> "Node":
        return self + as_node(other) * -1.0

    def __truediv__(self, other: Any) -> "Node":
        return self * power(as_node(other), -1.0)

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def T(self) -> "Node":
        """The transposed matrix."""
        return Node(self.value.T, [(self, lambda dy: dy.T)])

    def __getitem__(self, place: Any) -> "Node":
        """Some of the numbers; what is taken twice gets both gradients."""

        def back(dy: Floats) -> Floats:
            dx = np.zeros_like(self.value)
            np.add.at(dx, place, dy)
            return dx

        return Node(self.value[place], [(self, back)])


def as_node(value: Any) -> Node:
    """A constant, unless it is a node."""
    return value if isinstance(value, Node) else Node(value)


def _summed(dy: Floats, of: Node) -> Floats:
    """A number that was used in many places (NumPy's broadcasting) gets the sum of their gradients."""
    leading = dy.ndim - of.value.ndim
    stretched = [leading + i for i, size in enumerate(of.value.shape) if size == 1]
    summed: Floats = dy.sum(axis=(*range(leading), *stretched)).reshape(of.value.shape)
    return summed


def _number_by_number(x: Node, value: Floats, slope: Floats) -> Node:
    return Node(value, [(x, lambda dy: dy * slope)])


def power(x: Node, exponent: float) -> Node:
    """`x ** p`, whose slope is `p x ** (p - 1)`."""
    return _number_by_number(x, x.value**exponent, exponent * x.value ** (exponent - 1))


def exp(x: Node) -> Node:
    """Its own slope."""
    return _number_by_number(x, np.exp(x.value), np.exp(x.value))


def log(x: Node) -> Node:
    """The slope is 1 / x."""
    return _number_by_number(x, np.log(x.value), 1 / x.value)


def tanh(x: Node) -> Node:
    """The hyperbolic tangent. Its slope is one minus its square."""
    return _number_by_number(x, np.tanh(x.value), 1 - np.tanh(x.value) ** 2)


def erf(x: Node) -> Node:
    """The slope is 2 / sqrt(pi) exp(-x ** 2)."""
    slope = 2 / math.sqrt(math.pi) * np.exp(-(x.value**2))
    return _number_by_number(x, np.asarray(_erf(x.value), np.float64), slope)


def where(chosen: npt.NDArray[np.bool_], x: Node, otherwise: Any) -> Node:
    """X where chosen, a constant elsewhere, from which no gradient comes back."""
    return Node(np.where(chosen, x.value, otherwise), [(x, lambda dy: np.where(chosen, dy, 0.0))])


def total(x: Node, axis: int | None = None) -> Node:
    """The sum of all numbers, or along an axis, which stays with size 1."""
    value = x.value.sum() if axis is None else x.value.sum(axis=axis, keepdims=True)
    return Node(value, [(x, lambda dy: np.broadcast_to(dy, x.value.shape))])


def mean(x: Node) -> Node:
    """Along the last axis, which stays with size 1."""
    share: float = 1 / x.value.shape[-1]
    return total(x, -1) * share


def side_by_side(parts: Sequence[Node]) -> Node:
    """Matrices side by side."""
    ends = np.cumsum([part.value.shape[1] for part in parts])

    def back(end: int, width: int) -> WayBack:
        return lambda dy: dy[:, end - width : end]

    parents = [(part, back(end, part.value.shape[1])) for part, end in zip(parts, ends, strict=True)]
    return Node(np.concatenate([part.value for part in parts], axis=1), parents)


def gradients(result: Node, of: Mapping[str, Node], given: npt.ArrayLike = 1.0) -> dict[str, Floats]:
    """The gradient of each named node; zeros for one that has no part in the result.

    Args:
        result: where the way back begins: the loss.
        of: the nodes whose gradients are asked for.
        given: the gradient of `result` itself, of its shape. 1 for a loss.
    """
    found: dict[int, Floats] = {id(result): np.broadcast_to(np.asarray(given, np.float64), result.value.shape)}
    for node in reversed(_in_order(result)):
        for parent, back in node.parents:
            more = back(found[id(node)])
            found[id(parent)] = found[id(parent)] + more if id(parent) in found else more
    return {name: np.array(found.get(id(node), np.zeros_like(node.value))) for name, node in of.items()}


def _in_order(result: Node) -> list[Node]:
    """All nodes that the result was computed from, each behind its own parents; the result is the last."""
    ordered: list[Node] = []
    seen: set[int] = set()
    waiting = [(result, False)]
    while waiting:
        node, is_ready = waiting.pop()
        if is_ready:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting += [(parent, False) for parent, _ in node.parents]
    return ordered
