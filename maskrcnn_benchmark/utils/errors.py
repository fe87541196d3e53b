"""Errors that a user can act on, and the wrapper of command lines that prints them in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from maskrcnn_benchmark.utils.text import printable


class UsageError(Exception):
    """Invalid input by a user; the message says what is wrong, where, and what to do."""


class ConfigError(UsageError):
    """Invalid configuration file, key or value; the message names the file and the key."""


class DataError(UsageError):
    """Invalid data set, annotation or image; the message names the file and the id."""


class CheckpointError(UsageError):
    """Weight file that is unreadable or does not fit the model; the message names the file and the tensor."""


class DeviceError(UsageError):
    """Requested device that does not exist."""


class WriteError(UsageError):
    """File that cannot be written (no space, no permission, a failing disk); the message names the file."""


class ProcessError(UsageError):
    """Process of the run that ended unexpectedly; the message names it and the likely reason."""


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` of a command line tool and exit the process with its exit code (`None` counts as 0).

    A `UsageError` becomes the line `error: ...` on standard error, with control characters escaped, and exit
    code 2; Ctrl-C becomes a hint to run the same command again and exit code 130. Any other exception is a
    bug and keeps its traceback.
    """
    try:
        code = main()
    except UsageError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr, flush=True)
        sys.exit(130)
    sys.exit(code or 0)
