"""Mask R-CNN R-50-FPN of this project and of torchvision with the same weights, for benchmarks.

Both see one image with the same objects, keep stem and second stage frozen, normalise with fixed statistics,
and put the stride into the 3x3 convolutions (torchvision's layout). Each selects its proposals, but both pass
on the same list, because random weights would give different and useless ones: 1000 for detection, 2000 for
training, with more than enough near an object to fill the quota of positives. What differs is the work that
each library does for the same result, and the +1 of the published box convention.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList as PeerImages
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FrozenBatchNorm2d
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.masks import SegmentationMask

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CLASSES = 81
SCORE_SCALE = 1.5
"""Factor on the random class weights: makes scores pass the threshold, so that there are detections."""


SOLVER = ["SOLVER.BASE_LR", 1e-6]
"""Random weights and noise: a real learning rate would end in infinities."""
QUICK = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 10]
QUICK += ["MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN", 200, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 100]
"""Less work per image, to try the suite."""


def load_model_config(*, quick: bool = False) -> CfgNode:
    """The published Mask R-CNN R-50-FPN with torchvision's position of the stride and selection per image."""
    settings: list[object] = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", "MODEL.RESNETS.STRIDE_IN_1X1", False]
    settings += ["MODEL.RPN.FPN_POST_NMS_PER_BATCH", False, *SOLVER, *(QUICK if quick else [])]
    return load_config(str(CONFIGS / "e2e_mask_rcnn_R_50_FPN_1x.yaml"), [str(value) for value in settings])


def load_class_config(masks: str, classes: int, *, quick: bool = False) -> CfgNode:
    """A model with so many classes, background included.

    `masks` "from class weights": the LST model (cosine classifier, transferred masks); "per class": the
    published Mask R-CNN. `quick` takes a ResNet-18 backbone and leaves out the fully connected mask branch.
    """
    name = {"from class weights": "coco_mask_fpn_lst.yaml", "per class": "coco_mask_fpn.yaml"}[masks]
    settings: list[object] = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", *SOLVER]
    settings += ["MODEL.ROI_BOX_HEAD.NUM_CLASSES", classes]
    if quick:
        settings += [*QUICK, "MODEL.ROI_MASK_HEAD.USE_MLPMASK", False, "MODEL.BACKBONE.CONV_BODY", "R-18-FPN"]
        settings += ["MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithFixedBatchNorm"]
        settings += ["MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    return load_config(str(CONFIGS / "base" / name), [str(value) for value in settings])


def make_ours(cfg: CfgNode) -> GeneralizedRCNN:
    """The model with seeded random weights, class scores scaled."""
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(2.0)  # keeps the activations of random weights in range
        box = model.get_submodule("roi_heads.box.predictor")
        box.get_parameter("cls_score.weight").mul_(SCORE_SCALE)
    return model


def peer_name(name: str) -> str:
    """Name in torchvision's Mask R-CNN of one of our parameters."""
    parts = name.split(".")
    if name.startswith("backbone.body"):
        name = name.replace("backbone.body.stem.", "backbone.body.")
    elif name.startswith("backbone.fpn"):
        kind = "inner_blocks" if parts[2].startswith("fpn_inner") else "layer_blocks"
        name = f"backbone.fpn.{kind}.{int(parts[2][-1]) - 1}.0.{parts[3]}"
    elif name.startswith("rpn.head.conv."):
        name = f"rpn.head.conv.0.0.{parts[-1]}"
    elif name.startswith("roi_heads.box.feature_extractor"):
        name = f"roi_heads.box_head.{parts[-2]}.{parts[-1]}"
    elif name.startswith("roi_heads.box.predictor"):
        name = f"roi_heads.box_predictor.{parts[-2]}.{parts[-1]}"
    elif name.startswith("roi_heads.mask.feature_extractor"):
        name = f"roi_heads.mask_head.{int(parts[-2][-1]) - 1}.0.{parts[-1]}"
    elif name.startswith("roi_heads.mask.predictor"):
        name = f"roi_heads.mask_predictor.{parts[-2]}.{parts[-1]}"
    return name


def make_peer(ours: GeneralizedRCNN, cfg: CfgNode) -> MaskRCNN:
    """torchvision's model with the weights of `ours` and equal counts of proposals and detections."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    rpn, heads = cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS
    model = MaskRCNN(
        backbone,
        num_classes=cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES,
        rpn_pre_nms_top_n_train=rpn.PRE_NMS_TOP_N_TRAIN,
        rpn_pre_nms_top_n_test=rpn.PRE_NMS_TOP_N_TEST,
        rpn_post_nms_top_n_train=rpn.FPN_POST_NMS_TOP_N_TRAIN,
        rpn_post_nms_top_n_test=rpn.FPN_POST_NMS_TOP_N_TEST,
        rpn_nms_thresh=rpn.NMS_THRESH,
        box_score_thresh=heads.SCORE_THRESH,
        box_nms_thresh=heads.NMS,
        box_detections_per_img=heads.DETECTIONS_PER_IMG,
        box_batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
        box_positive_fraction=heads.POSITIVE_FRACTION,
    )
    state = {peer_name(k): v for k, v in ours.state_dict().items() if "anchor_generator" not in k}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise RuntimeError(f"weights do not map: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model


def make_peer_optimizer(model: MaskRCNN, cfg: CfgNode) -> torch.optim.SGD:
    """SGD with the same hyperparameters, as torchvision's reference training makes it."""
    solver = cfg.SOLVER
    return torch.optim.SGD(
        trainable(model), lr=solver.BASE_LR, momentum=solver.MOMENTUM, weight_decay=solver.WEIGHT_DECAY
    )


def make_objects(height: int, width: int, count: int = 8) -> tuple[list[BoxList], list[dict[str, Tensor]]]:
    """The same ellipses as our target (polygons) and as torchvision's (bitmaps), labels 1..80."""
    source = torch.Generator().manual_seed(1)
    centre = torch.rand(count, 2, generator=source) * torch.tensor([width * 0.6, height * 0.6])
    centre += torch.tensor([width * 0.2, height * 0.2])
    radius = 20 + torch.rand(count, 2, generator=source) * (0.18 * min(height, width))
    angle = torch.linspace(0, 2 * torch.pi, 33)[:-1]
    circle = torch.stack((angle.cos(), angle.sin()), dim=1)
    outlines = centre[:, None] + radius[:, None] * circle
    boxes = torch.cat((outlines.amin(dim=1), outlines.amax(dim=1)), dim=1)
    labels = torch.randint(1, CLASSES, (count,), generator=source)
    target = BoxList(boxes, (width, height))
    target.add_field("labels", labels)
    masks = SegmentationMask([[outline.flatten().tolist()] for outline in outlines], (width, height))
    target.add_field("masks", masks)
    peer = {"boxes": boxes, "labels": labels, "masks": masks.to_bitmaps().to(torch.uint8)}
    return [target], [peer]


def make_proposals(objects: BoxList, count: int) -> Tensor:
    """Boxes (count,4) xyxy: a fifth are shifted copies of the objects, the others are anywhere."""
    source = torch.Generator().manual_seed(3)
    width, height = objects.size
    near = objects.bbox.repeat(-(-count // 5 // len(objects)), 1)[: count // 5]
    sides = near[:, 2:] - near[:, :2]
    near = near + 0.1 * (torch.rand(len(near), 4, generator=source) - 0.5) * sides.repeat(1, 2)
    far = count - len(near)
    sides = 16 * (min(width, height) / 16) ** torch.rand(far, 2, generator=source)
    corner = torch.rand(far, 2, generator=source) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat((near, torch.cat((corner, corner + sides), dim=1)))
    limit = torch.tensor([width, height, width, height]) - 1
    return boxes.clamp(min=0).minimum(limit)


def _replaced_selection(select: Callable[..., list[BoxList]], boxes: Tensor) -> Callable[..., list[BoxList]]:
    """Selection that does its work and returns xyxy `boxes` (n, 4)."""

    def selection(*args: Any) -> list[BoxList]:
        proposals = BoxList(boxes, select(*args)[0].size)
        proposals.add_field("objectness", torch.ones(len(boxes), device=boxes.device))
        return [proposals]

    return selection


def fix_proposals(ours: GeneralizedRCNN, peer: MaskRCNN | None, objects: BoxList, cfg: CfgNode) -> None:
    """Make both models pass on the same proposals, after they have selected theirs."""
    device = next(ours.parameters()).device
    counts = cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST, cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN
    boxes = [make_proposals(objects, count).to(device) for count in counts]  # index: whether in training
    for training, selector in enumerate((ours.rpn.test_selector, ours.rpn.train_selector)):
        selector.select = _replaced_selection(selector.select, boxes[training])  # type: ignore[method-assign]
    if peer is None:
        return
    select_peer_proposals = peer.rpn.filter_proposals

    def select_peer(*args: Any) -> tuple[list[Tensor], list[Tensor]]:
        _, scores = select_peer_proposals(*args)
        return [boxes[peer.training]], scores

    peer.rpn.filter_proposals = select_peer  # type: ignore[method-assign]


def peer_losses(model: MaskRCNN, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Losses of torchvision's model on normalised images (1,3,H,W), without its resizing."""
    batch = PeerImages(images, [(images.shape[-2], images.shape[-1])])
    features = model.backbone(images)
    proposals, losses = model.rpn(batch, features, targets)
    _, heads = model.roi_heads(features, proposals, batch.image_sizes, targets)
    return losses | heads


def peer_detections(
    model: MaskRCNN, images: Tensor, paste: Callable[..., Tensor] = paste_masks_in_image
) -> dict[str, Tensor]:
    """Detections of torchvision's model with masks pasted into the image: boxes, labels, scores, masks."""
    height, width = images.shape[-2:]
    batch = PeerImages(images, [(height, width)])
    features = model.backbone(images)
    proposals, _ = model.rpn(batch, features)
    detections, _ = model.roi_heads(features, proposals, batch.image_sizes)
    result = detections[0]
    result["masks"] = paste(result["masks"], result["boxes"], (height, width)) > 0.5
    return result


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that receive gradients."""
    return [p for p in model.parameters() if p.requires_grad]
