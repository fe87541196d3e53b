"""The record of a model family: everything that the package outside of a head knows about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from yacs.config import CfgNode

Output = Literal["proposals", "boxes", "masks", "keypoints", "tracks"]


@dataclass(frozen=True)
class TargetAssignment:
    """How a family assigns targets; the doctor estimates memory from it and compares sizes with the data.

    Attributes:
        to: what targets are assigned to: `anchors` (by IoU), `points` (feature locations inside boxes),
            `grid` (cells of a fixed grid) or `centres` (one location per object).
        strides: key of the strides of the feature levels.
        anchor_sizes: key of the anchor sizes, "" without anchors.
        anchors_per_location: with anchors, their number per feature location.
    """

    to: Literal["anchors", "points", "grid", "centres"]
    strides: str
    anchor_sizes: str = ""
    anchors_per_location: Callable[[CfgNode], int] = lambda cfg: 1


@dataclass(frozen=True)
class UnusedKeys:
    """Keys without effect while `applies`, and the `reason`.

    A key that ends in a dot stands for its section.
    """

    keys: tuple[str, ...]
    applies: Callable[[CfgNode], bool]
    reason: str

    def covers(self, key: str) -> bool:
        """Return whether `key` is one of the keys or lies in one of the sections."""
        return any(key == k or (k.endswith(".") and key.startswith(k)) for k in self.keys)


@dataclass(frozen=True)
class Pitfall:
    """A combination of `keys` that loads and runs, and yet spoils results; `advice` says what to set."""

    text: str
    keys: tuple[str, ...]
    advice: str


def no_check(cfg: CfgNode) -> None:
    """Accept every config: a family without cross-key checks."""


def no_pitfalls(cfg: CfgNode) -> Iterable[Pitfall]:
    """Return nothing: a family without known pitfalls."""
    return ()


@dataclass(frozen=True)
class ModelFamily:
    """One model family.

    Attributes:
        name: value of MODEL.HEAD; a one-stage family's head has this name in the HEADS registry.
        title: name in messages.
        targets: how targets are assigned.
        necks: values of MODEL.NECK that fit; the first is taken when the config names none.
        section: section of MODEL with the keys of this family alone, "" when it has none.
        switch: key of MODEL that chooses the family in published yaml files, "" when there is none.
        classes_key: key of the number of classes with background; None for a model without classes.
        outputs: what it always predicts.
        optional_outputs: (output, key of MODEL that switches it on).
        one_stage: whether it is one head on the feature maps, registered with HEADS.
        roi_heads: whether it has RoI heads: the base of training in phases and of box features.
        size_multiple: sides of the network input are multiples of this.
        detections_key: key of the maximum number of detections per image.
        published_lr: learning rate of the published files for 16 images per update.
        deformable_key: key that makes convolutions of the head deformable, "" when there is none.
        tensor_keys: (beginning of a parameter name, key that decides whether a model has it).
        defaults: function that returns the section; for a family from outside the package.
        check: raises ConfigError for values of the family's keys that do not fit each other.
        unused: keys of the family that other keys switch off.
        pitfalls: yields combinations that the doctor warns of.
    """

    name: str
    title: str
    targets: TargetAssignment
    necks: tuple[str, ...]
    section: str = ""
    switch: str = ""
    classes_key: str | None = None
    outputs: tuple[Output, ...] = ("boxes",)
    optional_outputs: tuple[tuple[Output, str], ...] = ()
    one_stage: bool = True
    roi_heads: bool = False
    size_multiple: int = 1
    detections_key: str = "TEST.DETECTIONS_PER_IMG"
    published_lr: float = 0.01
    deformable_key: str = ""
    tensor_keys: tuple[tuple[str, str], ...] = ()
    defaults: Callable[[], CfgNode] | None = None
    check: Callable[[CfgNode], None] = no_check
    unused: tuple[UnusedKeys, ...] = ()
    pitfalls: Callable[[CfgNode], Iterable[Pitfall]] = no_pitfalls

    def predicts(self, cfg: CfgNode) -> set[Output]:
        """Return what a model of this family predicts under a config."""
        return {*self.outputs, *(output for output, key in self.optional_outputs if cfg.MODEL[key])}

    def chosen_by(self, cfg: CfgNode) -> str:
        """Return the setting that chose this family, for messages: its published switch or MODEL.HEAD."""
        return f"MODEL.{self.switch}" if self.switch and cfg.MODEL[self.switch] else f"MODEL.HEAD {self.name}"

    def undo(self, cfg: CfgNode) -> str:
        """Return the settings that choose the two-stage model instead, for messages."""
        keys = [f"MODEL.{self.switch} False"] if self.switch and cfg.MODEL[self.switch] else []
        return " and ".join([*keys, *(["MODEL.HEAD ''"] if cfg.MODEL.HEAD else [])])
