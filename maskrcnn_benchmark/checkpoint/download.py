"""Weight files from the network, kept in the cache folder that torch tools share.

Rules of the published code (maskrcnn_benchmark/utils/model_zoo.py): folder $TORCH_MODEL_ZOO, else
$TORCH_HOME/models, else ~/.torch/models; Detectron's files, all called model_final.pkl, are kept under their
whole path. Addresses begin with https://, also those that a server redirects to; the environment variable
MRB_ALLOW_HTTP=1 admits http://.
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

from maskrcnn_benchmark.checkpoint.digests import sidecar, sidecar_text
from maskrcnn_benchmark.checkpoint.zip_archive import ZIP_MARK
from maskrcnn_benchmark.utils.comm import broadcast_object, is_main_process
from maskrcnn_benchmark.utils.errors import CheckpointError, UsageError
from maskrcnn_benchmark.utils.files import atomic_path, write_text
from maskrcnn_benchmark.utils.progress import Progress

_HASH = re.compile(r"-([0-9a-f]{6,})\.")
_CHUNK = 1 << 20
_LARGEST = 1 << 35
ALLOW_HTTP = "MRB_ALLOW_HTTP"
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
        CheckpointError: on every process, when the address or a redirect of it is not encrypted (unless
            `MRB_ALLOW_HTTP` is 1), the download fails, is too large, or does not have the hash that its name
            carries; says where to put the file by hand.
    """
    target = cache_path(url)
    problem = None
    if is_main_process() and not target.is_file():
        try:
            _download(url, target)
        except (OSError, ValueError, http.client.HTTPException, UsageError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            problem = f"cannot download {url}: {reason}; put the file at {target} by hand"
    problem = broadcast_object(problem)
    if problem:
        raise CheckpointError(problem)
    return target


def _require_encrypted(url: str) -> None:
    """CheckpointError for an address whose content anyone on the way can change."""
    if not url.startswith("https://") and os.environ.get(ALLOW_HTTP) != "1":
        raise CheckpointError(
            f"{url[:200]} is not encrypted, so its content may be changed on the way; give an address with "
            f"https://, or set the environment variable {ALLOW_HTTP}=1 where you trust the network"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that could have been given themselves."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The request for `newurl`; CheckpointError unless it is encrypted."""
        if not is_url(newurl):
            raise CheckpointError(f"it leads to {newurl[:200]}, which is no address of a web server")
        _require_encrypted(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path) -> None:
    _require_encrypted(url)
    _logger.info("downloading %s to %s", url, target)
    with (
        urllib.request.build_opener(_Redirects).open(url, timeout=60) as response,
        atomic_path(target) as temporary,
    ):
        digest = _receive(response, temporary)
        expected = _HASH.search(target.name)
        if expected and not digest.startswith(expected[1]):
            raise CheckpointError(f"the content's hash is not {expected[1]}, the one in the file's name")
    _say(target, digest, expected[1] if expected else "")


def _receive(response: http.client.HTTPResponse, path: Path) -> str:
    """Write what a server sends to `path`; returns its SHA-256."""
    size = int(response.headers.get("Content-Length") or 0)
    if size > _LARGEST:
        raise CheckpointError(f"it has {size >> 20} MiB, and a weight file has at most {_LARGEST >> 20}")
    digest = hashlib.sha256()
    progress = Progress(max(1, -(-size // _CHUNK)), "download, MiB", _logger)
    written = 0
    with open(path, "wb") as file:
        while chunk := response.read(_CHUNK):
            written += len(chunk)
            if written > _LARGEST:
                raise CheckpointError(
                    f"it has more than {_LARGEST >> 20} MiB, the most that a weight file has"
                )
            file.write(chunk)
            digest.update(chunk)
            progress.update()
    if size and written != size:
        raise CheckpointError(f"the connection ended after {written} of {size} bytes")
    if not written:
        raise CheckpointError("the server sent an empty file")
    return digest.hexdigest()


def _say(target: Path, digest: str, expected: str) -> None:
    """Log what the digest was compared with; it is kept beside a file without checksums of its own."""
    if expected:
        _logger.info("%s has the SHA-256 that its name says (%s)", target, expected)
    else:
        _logger.info(
            "nothing is known that the content of %s could be compared with; its SHA-256 is %s",
            target,
            digest,
        )
    with open(target, "rb") as file:
        has_checksums = file.read(len(ZIP_MARK)) == ZIP_MARK
    if has_checksums:
        sidecar(target).unlink(missing_ok=True)  # of another file that was here before
    else:
        write_text(sidecar(target), sidecar_text(target, digest))
