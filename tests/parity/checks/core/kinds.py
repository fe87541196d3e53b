"""The reference files of the two-stage models and RetinaNet, and what checks them."""

from __future__ import annotations

from checks.core.components import check_components
from checks.core.models import check_model
from checks.core.params import check_parameter_file
from checks.files import FileKind

KINDS = (
    FileKind(check_components, pattern="components.json"),
    FileKind(check_parameter_file, pattern="params/*.json", job="params.{stem}"),
    FileKind(check_model, keys=frozenset({"config_diff_from_defaults", "images"})),
)
