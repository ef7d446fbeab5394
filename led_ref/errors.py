"""The exceptions of led_ref. Every message gives the found value and the remedy.

Each class is also a subclass of a built-in exception, so that `except ValueError` catches it, too.
"""


class LEDError(Exception):
    """The base class of all errors of led_ref."""


class ConfigError(LEDError, ValueError):
    """An invalid configuration: an odd window, heads that do not divide d_model, a config.json of another model."""


class CheckpointError(LEDError, ValueError):
    """A weight file that is damaged, hostile, incomplete, or of another shape than the configuration's."""


class MissingFileError(LEDError, FileNotFoundError):
    """A file, folder or Hub name that does not exist. The message names the files to add and their folder."""


class InputError(LEDError, ValueError):
    """An invalid argument: ids out of range, masks of another shape, a document that is too long."""


class SettingsError(InputError):
    """A generation setting that does not exist (the nearest known one is named) or that contradicts another."""


class BackendError(LEDError, RuntimeError):
    """A backend that does not exist or cannot run here."""
