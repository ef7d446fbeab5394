"""A file that holds one JSON object: config.json, generation_config.json. Read with errors that say what to do."""

import json
from pathlib import Path
from typing import Any

from led_ref.errors import ConfigError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        ConfigError: if the file cannot be read, is not JSON, or holds something else than an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits, nested without end
        raise ConfigError(f"{path} is not JSON ({error}). Fetch the file again.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a JSON {type(values).__name__}, not an object. Fetch the file again.")
    return values
