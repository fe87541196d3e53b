"""The user's own catalog: a Python file named by PATHS_CATALOG, run when a name is looked up.

Running it is running code. So its name counts only where the user gave it himself: on the command line or in
the environment variable MRB_PATHS_CATALOG, never from a yaml file, which may come from somebody else.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened, shortened_text

CATALOG_KEY = "PATHS_CATALOG"
CATALOG_VARIABLE = "MRB_PATHS_CATALOG"


def chosen_catalog(overrides: Sequence[Any]) -> str | None:
    """Return the catalog that the environment names; None when neither it nor the command line names one.

    With PATHS_CATALOG among the KEY VALUE pairs of the command line, which wins, the result is its default.
    """
    if CATALOG_KEY in map(str, overrides[::2]):
        return ""
    return os.environ.get(CATALOG_VARIABLE) or None


def check_catalog_source(values: Mapping[str, Any], source: str) -> None:
    """Refuse a PATHS_CATALOG that a file names; "" stands for the packaged names and is always fine.

    Raises:
        ConfigError: with the two ways to name it.
    """
    path = values.get(CATALOG_KEY, "")
    if path != "" and isinstance(path, str):
        raise ConfigError(
            f"{source}: {CATALOG_KEY} {shortened(path)} is a Python file that would be run, so a "
            f"configuration file cannot name it; if you trust it, add to the command line: {CATALOG_KEY} "
            f"{shortened_text(path)}, or set {CATALOG_VARIABLE}"
        )


def load_user_catalog(path: str) -> ModuleType:
    """Run the file and return it as a module (with DatasetCatalog and, perhaps, ModelCatalog).

    The file is code that the user wrote; it runs with all rights.

    Raises:
        ConfigError: the file is missing, or fails while it runs.
    """
    if not Path(path).is_file():
        raise ConfigError(f"PATHS_CATALOG {path} does not exist")
    spec = importlib.util.spec_from_file_location("maskrcnn_benchmark_user_catalog", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"PATHS_CATALOG {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"PATHS_CATALOG {path} fails: {type(error).__name__}: {error}") from error
    return module
