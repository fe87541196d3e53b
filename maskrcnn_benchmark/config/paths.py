"""Which config values are paths, and the expansion of `~` and variables in them."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError
from maskrcnn_benchmark.utils.files import expand_path

PATH_KEYS = (
    "OUTPUT_DIR",
    "PATHS_CATALOG",
    "MODEL.WEIGHT",
    "MODEL.QRY_INDICE_CLS",
    "MODEL.QRY_INDICE_IMG",
    "MODEL.DISTILL_WEIGHTS_FILE",
    "DATASETS.SORTED_IDS",
    "LST.SORTED_IDS",
    "LST.ANN_TRAIN",
    "LST.ANN_VAL",
    "LST.IMG_TRAIN",
    "LST.IMG_VAL",
    "LST.RUN_DIR",
    "LST.BASE_RUN",
    "LST.REFERENCE_RUN",
    "LST.REPLAY.FILE_IMAGES",
    "LST.REPLAY.FILE_CLASSES",
    "LST.DISTILL.FILE",
)
"""Keys whose value is a path (or, MODEL.WEIGHT, an address). Data sets are expanded by `resolve_dataset`."""


def expand_config_paths(cfg: CfgNode) -> None:
    """Expand the values of PATH_KEYS in place, so that a run's stored config holds paths that work anywhere.

    Raises:
        ConfigError: an unknown user or a variable that is not set, with the key.
    """
    for key in PATH_KEYS:
        section, _, leaf = key.rpartition(".")
        node = get_value(cfg, section) if section else cfg
        try:
            node[leaf] = expand_path(node[leaf])
        except UsageError as error:
            raise ConfigError(f"{key}: {error}") from None
