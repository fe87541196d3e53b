"""The log of a run: standard output of the main process and `log.txt` in the output folder."""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from maskrcnn_benchmark.utils.files import make_folder, write_error
from maskrcnn_benchmark.utils.links import open_in_place
from maskrcnn_benchmark.utils.progress import bars_hidden
from maskrcnn_benchmark.utils.text import printable

NAME = "maskrcnn_benchmark"
_FORMAT = "%(asctime)s %(levelname).1s %(message)s"


class _Formatter(logging.Formatter):
    """Escapes control characters; only a message whose own format has several lines may break lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Called by the logging library before a traceback is added."""
        record.message = printable(record.message, lines="\n" in str(record.msg))
        return super().formatMessage(record)


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever `sys.stdout` is at the time, so that redirected output is honoured."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line above the progress bars."""
        with bars_hidden(self.stream):
            super().emit(record)


class _LogFile(logging.FileHandler):
    """Stops with one line, without disturbing the run, when the file cannot be written any more."""

    def _open(self) -> TextIOWrapper:
        """Open the file to be appended to, without following a link out of the folder."""
        return open_in_place(self.baseFilename)

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by the logging library inside the handler of an exception."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger(NAME).removeHandler(self)
        self.stream = None  # closing would try to write what is left
        print(f"warning: {write_error(self.baseFilename, error)}", file=sys.stderr, flush=True)


def _open_log(path: Path) -> _LogFile:
    try:
        return _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from None


def setup_logger(output_dir: str | None, rank: int) -> logging.Logger:
    """Prepare and return the package's logger; package code logs through `logging.getLogger(__name__)`.

    Rank 0 logs from INFO on to standard output and, with `output_dir`, appends to `log.txt` there;
    other ranks log warnings only, to standard output, marked with their rank. A second call replaces the
    handlers of the first.
    """
    logger = logging.getLogger(NAME)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    mark = "" if rank == 0 else f"[rank {rank}] "
    formatter = _Formatter(mark + _FORMAT, datefmt="%H:%M:%S")
    handlers: list[logging.Handler] = [_StdoutHandler()]
    if output_dir and rank == 0:
        handlers.append(_open_log(make_folder(output_dir) / "log.txt"))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return logger
