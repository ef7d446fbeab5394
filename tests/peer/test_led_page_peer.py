"""docs/led_page.md leaves nothing out: every public name of transformers.models.led is in its left column."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
from led_page import names, rows

import led_ref

pytestmark = pytest.mark.peer


def public_names(module):
    """Classes and functions that a module defines, methods and properties that these classes define."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        yield name
        if inspect.isclass(value):
            own = [n for n, member in vars(value).items() if inspect.isfunction(member) or isinstance(member, property)]
            yield from (f"{name}.{member}" for member in own if not member.startswith("_"))


def test_every_public_name_is_in_the_table():
    import transformers.models.led as led

    there = {name for cell, _ in rows() for name in names(cell)}
    found = set()
    for module in pkgutil.iter_modules(led.__path__):
        found |= set(public_names(importlib.import_module(f"{led.__name__}.{module.name}")))
    assert {"LEDModel.forward", "LEDConfig", "LEDDecoderLayer.forward", "shift_tokens_right"} <= found
    assert found - there == set()

    modeling = led.modeling_led
    for name in (name for name in found if name.endswith("Output")):
        fields = {f"{name}.{field.name}" for field in dataclasses.fields(getattr(modeling, name))}
        assert fields - there == set()
    settings = set(led.configuration_led.LEDConfig.__annotations__) - {"model_type", "attribute_map"}
    assert {f"LEDConfig.{setting}" for setting in settings} - there == set()


@pytest.mark.parametrize("name", ["LEDModel", "LEDForConditionalGeneration", "LEDForQuestionAnswering"])
def test_forward_takes_every_argument(name):
    import transformers

    theirs = inspect.signature(getattr(transformers, name).forward).parameters
    ours = inspect.signature(getattr(led_ref, name).forward).parameters
    assert theirs.keys() - ours.keys() == {"return_dict", "kwargs"}
