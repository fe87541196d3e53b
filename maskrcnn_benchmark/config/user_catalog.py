"""The user's own catalog: a Python file named by PATHS_CATALOG, run when a name is looked up."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from maskrcnn_benchmark.utils.errors import ConfigError


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
