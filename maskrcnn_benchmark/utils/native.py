"""The native library: loading it, and what torch learns about its operations besides their kernels.

The library is loaded at the first use of an operation, not at import. The file of an operation registers its
fake kernel (shapes without data, for `torch.compile` and `torch.export`) and its derivative by `register_op`;
both take effect when the library is loaded. MRB_NATIVE_FOLDER names another folder that holds it, as
`make sanitize` does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.errors import UsageError

NAMESPACE = "maskrcnn_benchmark"
BUILD_HINT = "build them with: pip install --no-build-isolation -e ."


class OpLibrary:
    """The native library of a folder, and the registrations that wait for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded = False
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def register(self, apply: Callable[[], None]) -> None:
        """Call `apply` when the library is loaded: now, if it is already."""
        with self._lock:
            if not self.loaded:
                self._waiting.append(apply)
                return
        apply()

    def load(self) -> None:
        """Load the library and apply the registrations, once. Raises UsageError as `load_ops` does."""
        if self.loaded:
            return
        with self._lock:
            if self.loaded:
                return
            self._open()
            for apply in self._waiting:
                apply()
            self._waiting.clear()
            self.loaded = True

    def _open(self) -> None:
        libraries = sorted(self.folder.glob("_C*.so"))
        if not libraries:
            raise UsageError(f"the native operations are not built (no _C*.so in the package); {BUILD_HINT}")
        try:
            torch.ops.load_library(str(libraries[0]))
        except OSError as error:
            raise UsageError(
                f"the native operations in {libraries[0].name} do not load with torch {torch.__version__} "
                f"({error}); re{BUILD_HINT}"
            ) from error


_LIBRARY = OpLibrary(Path(os.environ.get("MRB_NATIVE_FOLDER") or Path(__file__).resolve().parents[1]))


def register_op(
    name: str,
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Register the fake kernel of operation `name`, and its derivative if it has one.

    fake, backward and setup_context: as `torch.library.register_fake` and `register_autograd` take them.
    """

    def apply() -> None:
        qualified = f"{NAMESPACE}::{name}"
        torch.library.register_fake(qualified, fake)
        if backward is not None:
            torch.library.register_autograd(qualified, backward, setup_context=setup_context)

    _LIBRARY.register(apply)


def load_ops() -> bool:
    """Make `torch.ops.maskrcnn_benchmark` available; True.

    Raises UsageError when the library is not built or does not fit the installed torch.
    """
    _LIBRARY.load()
    return True


# What torch.compiler.assume_constant_result does; calling it would import the whole compiler (1 s, 100 MB).
load_ops._dynamo_marked_constant = True  # type: ignore[attr-defined]


def has_cuda_kernels() -> bool:
    """Whether the library was built with CUDA kernels (setup.py decides; FORCE_CUDA overrides)."""
    load_ops()
    return torch.ops.maskrcnn_benchmark.has_cuda_kernels()


def is_channels_last(features: Tensor) -> bool:
    """Whether (B, C, H, W) is stored channels-last and not also plane by plane: the rule of the kernels."""
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
