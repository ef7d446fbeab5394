"""The labels of a classification, as config.json says them: how many, what they are called, how their loss is computed.

    "id2label": {"0": "negative", "1": "positive"}      names; without them LABEL_0, LABEL_1
    "num_labels": 2                                     how many, where they have no names
    "problem_type": "single_label_classification"       which loss; null: it follows from the labels (model/heads.py)

A summarizing LED has none of these, so they are checked when a head asks for them, and not before.
"""

from collections.abc import Mapping
from typing import Any

from led_ref.errors import ConfigError

REGRESSION = "regression"
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)

# What transformers takes where config.json says nothing.
_LABELS_UNLESS_GIVEN = 2


class Labels:
    """The properties of LEDConfig that speak of labels; `extra` holds what config.json says of them."""

    extra: Mapping[str, Any]

    @property
    def id2label(self) -> dict[int, str]:
        """The name of each label by its number.

        Raises:
            ConfigError: if the numbers are not 0, 1, 2, ... or `num_labels` says that there are more or fewer.
        """
        count, given = self.extra.get("num_labels"), self.extra.get("id2label")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ConfigError(f"num_labels is {count!r}; it must be a whole number of at least 1.")
        if given is None:
            return {label: f"LABEL_{label}" for label in range(count or _LABELS_UNLESS_GIVEN)}
        names = {str(label): name for label, name in given.items()} if isinstance(given, Mapping) else {}
        wanted = [str(label) for label in range(count or max(1, len(names)))]
        if names.keys() != set(wanted) or not all(isinstance(name, str) for name in names.values()):
            raise ConfigError(
                f"id2label is {given!r}; it must be an object with a name for each of the numbers {', '.join(wanted)}"
                f"{'' if count is None else f' (num_labels is {count})'}."
            )
        return {int(label): names[label] for label in wanted}

    @property
    def num_labels(self) -> int:
        """How many labels there are; 2 unless config.json says otherwise."""
        return len(self.id2label)

    @property
    def problem_type(self) -> str | None:
        """Which loss labels are compared with, one of `PROBLEM_TYPES`; None: it follows from the labels.

        Raises:
            ConfigError: for another one.
        """
        found: str | None = self.extra.get("problem_type")
        if found is not None and found not in PROBLEM_TYPES:
            raise ConfigError(f"problem_type is {found!r}; it is null or one of {', '.join(PROBLEM_TYPES)}.")
        return found
