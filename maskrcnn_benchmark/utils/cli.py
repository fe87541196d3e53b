"""The outermost frame of every command line tool."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from maskrcnn_benchmark.utils.errors import UsageError


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and leave the process with its exit code (`None` counts as 0).

    A `UsageError` becomes the line `error: ...` on standard error and exit code 2; Ctrl-C becomes a
    hint to run the same command again and exit code 130. Any other exception is a defect and keeps its
    traceback.
    """
    try:
        code = main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr, flush=True)
        sys.exit(130)
    sys.exit(code or 0)
