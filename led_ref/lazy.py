"""Names that a package hands on from its files: each file is imported when one of its names is first used.

    __getattr__, __dir__ = hand_on(__name__, {"kv_cache": ("DecoderCache",)})

So a name can be reached without its file (`led_ref.model.DecoderCache`), files inside may move, and `import led_ref` imports
nothing. A package also imports the same names under TYPE_CHECKING, where mypy and the documentation find them. A function
with the same name as its module (weights/convert.py) is not handed on: the name is the module's.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def hand_on(
    package: str, names_by_module: Mapping[str, Sequence[str]], subpackages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its dotted name.
        names_by_module: the names of each module, which is a dotted name relative to the package.
        subpackages: packages inside it that are names of it, too.
    """
    module_of = {name: f"{package}.{module}" for module, names in names_by_module.items() for name in names}

    def fetch(name: str) -> Any:
        if name in module_of:
            value = getattr(importlib.import_module(module_of[name]), name)
        elif name in subpackages:
            value = importlib.import_module(f"{package}.{name}")
        else:
            known = ", ".join(sorted([*module_of, *subpackages]))
            raise AttributeError(f"{package} has no {name!r}; its public names are {known}")
        setattr(sys.modules[package], name, value)  # from now on it is found without this function
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of, *subpackages})

    return fetch, names
