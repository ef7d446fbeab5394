"""What editors and type checkers see: no public function returns Any, and the typed settings are those of the schema."""

import inspect
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import led_ref
from led_ref.generation.settings.settings import SETTINGS, GenerationConfig
from led_ref.generation.settings.typed import SettingsByName
from led_ref.pipelines.summarization import OptionsByName, TextOptions


def public_functions():
    for name in led_ref.__all__:
        public = getattr(led_ref, name)
        if inspect.isfunction(public):
            yield name, public
        for member, function in inspect.getmembers(public, inspect.isroutine) if inspect.isclass(public) else ():
            own = getattr(function, "__module__", None) or ""
            if not member.startswith("_") and own.startswith("led_ref"):
                yield f"{name}.{member}", function


@pytest.mark.parametrize(("name", "function"), [*public_functions()])
def test_no_public_function_returns_any(name, function):
    hints = get_type_hints(function)
    assert "return" in hints
    returned = hints["return"]
    parts = get_args(returned) if get_origin(returned) in (Union, UnionType, tuple) else ()
    assert Any not in (returned, *parts)


def test_typed_settings_are_those_of_the_schema():
    assert list(SettingsByName.__annotations__) == list(SETTINGS)
    options = [name for name in OptionsByName.__annotations__ if name not in SETTINGS]
    assert options == [field.name for field in fields(TextOptions)]
    hints = get_type_hints(TextOptions)
    assert all(get_type_hints(OptionsByName)[name] == hints[name] for name in options)


SAMPLES = [True, 2, 0.5, "never", "static", "a text", ["a", "b"], [5, 6], [[5], [6, 7]], {(5, 6): -1.0}, (2, 1.5)]


def takes(hint, value):
    """Whether a type checker takes the value."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (int, bool, str, type(None)):
        return type(value) is hint
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(takes, parts, value))
    if getattr(get_origin(hint), "__name__", "") == "Sequence":
        return isinstance(value, list | tuple) and all(takes(parts[0], part) for part in value)
    if getattr(get_origin(hint), "__name__", "") == "Mapping":
        return isinstance(value, dict)
    return any(takes(part, value) for part in parts)


@pytest.mark.parametrize("name", SETTINGS)
def test_hints_take_what_the_forms_take(name):
    hint = get_type_hints(SettingsByName)[name]
    for value in SAMPLES:
        assert takes(hint, value) or not SETTINGS[name].form.fits(value), value
    assert takes(hint, None)
    assert not takes(hint, object())
    assert SETTINGS[name].form.fits(np.int64(2)) == SETTINGS[name].form.fits(2)
    assert hasattr(GenerationConfig(), name)
