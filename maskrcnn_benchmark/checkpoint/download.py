"""Weight files from the network, kept in the cache folder that torch tools share.

Rules of the published code (maskrcnn_benchmark/utils/model_zoo.py): folder $TORCH_MODEL_ZOO, else
$TORCH_HOME/models, else ~/.torch/models; Detectron's files, all called model_final.pkl, are kept under their
whole path.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

from maskrcnn_benchmark.utils.comm import broadcast_object, is_main_process
from maskrcnn_benchmark.utils.errors import CheckpointError, UsageError
from maskrcnn_benchmark.utils.files import atomic_path
from maskrcnn_benchmark.utils.progress import Progress

_HASH = re.compile(r"-([0-9a-f]{6,})\.")
_CHUNK = 1 << 20
_logger = logging.getLogger(__name__)


def is_url(path: str) -> bool:
    """Whether `path` is an http(s) address."""
    return path.startswith(("http://", "https://"))


def cache_path(url: str) -> Path:
    """Path of the cached file of an address."""
    home = os.environ.get("TORCH_HOME", "~/.torch")
    folder = os.environ.get("TORCH_MODEL_ZOO", os.path.join(home, "models"))
    path = urlparse(url).path
    name = path.rpartition("/")[2]
    if name == "model_final.pkl":
        name = path.replace("/", "_")
    return Path(folder).expanduser() / name


def fetch(url: str) -> Path:
    """Path of the cached file; the main process downloads it first if it is not there, the others wait.

    Raises:
        CheckpointError: on every process, when the download fails or the content does not have the hash that
            its name carries; says where to put the file by hand.
    """
    target = cache_path(url)
    problem = None
    if is_main_process() and not target.is_file():
        try:
            _download(url, target)
        except (OSError, ValueError, http.client.HTTPException, UsageError) as error:
            problem = f"cannot download {url}: {error}; put the file at {target} by hand"
    problem = broadcast_object(problem)
    if problem:
        raise CheckpointError(problem)
    return target


def _download(url: str, target: Path) -> None:
    _logger.info("downloading %s to %s", url, target)
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(url, timeout=60) as response,
        atomic_path(target) as temporary,
    ):
        size = int(response.headers.get("Content-Length") or 0)
        progress = Progress(max(1, -(-size // _CHUNK)), "download, MiB", _logger)
        with open(temporary, "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.update()
        written = temporary.stat().st_size
        if size and written != size:
            raise CheckpointError(f"the connection ended after {written} of {size} bytes")
        expected = _HASH.search(target.name)
        if expected and not digest.hexdigest().startswith(expected[1]):
            raise CheckpointError(f"the content's hash is not {expected[1]}, the one in the file's name")
