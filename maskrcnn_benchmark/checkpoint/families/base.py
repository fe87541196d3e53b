"""The record that describes a family of weight files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]
COUNTER, VARIANCE = "num_batches_tracked", "running_var"

CAFFE2_IMAGES: dict[str, Any] = {
    "INPUT.TO_BGR255": True,
    "INPUT.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "INPUT.PIXEL_STD": [1.0, 1.0, 1.0],
}
"""Images as the ResNets of Caffe2 see them: BGR in [0, 255] without the mean of ImageNet."""


def keep_names(state: State, conv_body: str) -> dict[str, Tensor]:
    """Return tensors of any shape (...,) unchanged; their names are those of our models or tails of them."""
    return dict(state)


@dataclass(frozen=True)
class WeightFamily:
    """A family of weight files: how it is recognised, read and written, and what it asks of a model.

    Args:
        name: what reports call it.
        matches: whether names without a leading `module.`, read from a path, are of this family.
        to_ours: the tensors under our names or tails of them; takes MODEL.BACKBONE.CONV_BODY too.
        from_ours: the inverse, or None where there is none; raises CheckpointError for tensors that the
            family cannot hold.
        export_name: what `tools/import_weights.py --to` calls it; families may have one name where each
            `holds` other models.
        holds: whether tensors under our names are of a model that the family has.
        expected_config: config key -> value that the weights were trained with.
        expected_by_file: the same for single files, by their name.
        frozen_bn_eps: what fixed batch norm must add to the variances of the file; None where `to_ours` has
            added it.
        example_configs: where such settings can be seen.
    """

    name: str
    matches: Callable[[State, str], bool]
    to_ours: Callable[[State, str], dict[str, Tensor]] = keep_names
    from_ours: Callable[[State], dict[str, Tensor]] | None = None
    export_name: str = ""
    holds: Callable[[State], bool] = bool
    expected_config: Mapping[str, Any] = field(default_factory=dict)
    expected_by_file: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frozen_bn_eps: float | None = None
    example_configs: str = ""

    def expects(self, path: str) -> dict[str, Any]:
        """Config key -> value that goes with the file at `path`."""
        return {**self.expected_config, **self.expected_by_file.get(path.rpartition("/")[2], {})}
