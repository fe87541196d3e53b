"""Errors that a user can act on: one clear line each, shown without a traceback by `utils.cli.run_cli`."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input by a user; the message says what is wrong, where, and what to do."""


class ConfigError(UsageError):
    """A configuration file, key or value that cannot be used; names the file and the key."""


class DataError(UsageError):
    """A data set, annotation or image that cannot be used; names the file and the id."""


class CheckpointError(UsageError):
    """A weight file that cannot be read, or that does not fit the model; names the file and the tensor."""


class DeviceError(UsageError):
    """A device that was asked for and is not there."""


class WriteError(UsageError):
    """A file that cannot be written: no space, no permission, a failing disk; names the file."""
