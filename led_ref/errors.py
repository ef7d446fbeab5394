"""The errors that led_ref raises: a few kinds, and every message gives the value that was found and the remedy.

Each kind is also the built-in exception that a Python programmer would have caught, so `except ValueError` goes on working.
"""


class LEDError(Exception):
    """Anything that led_ref refuses. Catch this to catch them all."""


class ConfigError(LEDError, ValueError):
    """A configuration that cannot be: an odd window, heads that do not divide d_model, a config.json of another model."""


class CheckpointError(LEDError, ValueError):
    """A file of weights that is damaged, hostile, incomplete, or of another shape than the configuration says."""


class MissingFileError(LEDError, FileNotFoundError):
    """A file, folder or Hub name that is not there. The message says which files to put where."""


class InputError(LEDError, ValueError):
    """What the caller handed in cannot be used: ids out of range, masks of another shape, a document that is too long."""


class SettingsError(InputError):
    """A generation setting that does not exist (the nearest known one is named) or that contradicts another."""


class BackendError(LEDError, RuntimeError):
    """A backend that does not exist or cannot run here."""
