"""The label table of Cityscapes: ids, which classes have objects that count, what is ignored."""

from __future__ import annotations

# Ids of all labels by name. A license plate has no id: it is never drawn.
# fmt: off
_NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel",
    "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider",
    "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)
# fmt: on
LABEL_IDS = {name: number for number, name in enumerate(_NAMES)} | {"license plate": -1}
# The classes whose objects are told apart and evaluated, in the order of their labels (1 to 8).
THING_NAMES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
THING_IDS = tuple(LABEL_IDS[name] for name in THING_NAMES)
# Regions of these ids say nothing about a detection in them.
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
# parity: single objects of these have instance numbers, which the official evaluation takes for no void.
PARTED_VOID_IDS = (29, 30)
# In instance id images an object has the number INSTANCES * label id + its number; what is smaller is a
# whole region: of a class without objects, or a group of objects that were not told apart.
INSTANCES = 1000


def label_of(name: str) -> tuple[int, bool] | None:
    """(id, whether it is a group) of a label such as "car" or "cargroup"; None when it is unknown."""
    if name in LABEL_IDS:
        return LABEL_IDS[name], False
    single = name.removesuffix("group")
    return (LABEL_IDS[single], True) if single in LABEL_IDS and single != name else None
