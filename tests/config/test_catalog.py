"""config.catalog and weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn_benchmark.config.catalog import DatasetSpec, packaged_datasets, resolve_dataset, resolve_weight
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.utils.errors import ConfigError

USER = """
class DatasetCatalog:
    @staticmethod
    def get(name):
        if name == "mine":
            return dict(factory="LVISDataset", args=dict(root="images", ann_file="a.json"))
        if name == "odd":
            return dict(factory="MyDataset", args={})
        if name == "half":
            return dict(factory="COCODataset", args=dict(root="x"))
        raise RuntimeError("Dataset not available: " + name)


class ModelCatalog:
    @staticmethod
    def get(name):
        if name == "mine":
            return "/weights/mine.pth"
        raise RuntimeError("model not present: " + name)
"""


def test_packaged_names() -> None:
    cfg = load_config(None)
    assert resolve_dataset(cfg, "coco_2014_minival") == DatasetSpec(
        "coco_2014_minival",
        "coco",
        "datasets/coco/annotations/instances_minival2014.json",
        "datasets/coco/val2014",
    )
    assert resolve_dataset(cfg, "lvis_v0.5_train").kind == "lvis"
    assert resolve_dataset(cfg, "lvis_v1_val").img_dir == "datasets/coco"
    published = ["coco_2017_train", "keypoints_coco_2014_valminusminival", "voc_2007_test_cocostyle"]
    assert set(published) <= set(packaged_datasets())


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"lvis_v0.5_{part}_{group}"
            for part in ("train", "val")
            for group in ("top270", "top100", "830", "step9")
        ),
        *(
            "lvis_v0.5_minival",
            "lvis_v0.5_train_step3_320",
            "lvis_v0.5_val_top1230",
            "lvis_v0.5_val_cocofied",
        ),
        *("coco_2014_minival_100", "coco_2017_minival", "coco_2017_val_100", "keypoints_coco_2017_val"),
        *("coco_2017_test_dev", "coco_2017_test-dev", "lvis_v1_test_dev", "lvis_v0.5_val_rand_100"),
    ],
)
def test_names_of_published_catalogs(name: str) -> None:
    """maskrcnn-benchmark, all versions of the LST release, detectron2."""
    spec = resolve_dataset(load_config(None), name)
    assert spec.kind == name.replace("keypoints_", "").split("_")[0] and spec.ann_file.endswith(".json")


def test_folders_of_published_names() -> None:
    known = packaged_datasets()
    assert known["coco_2017_minival"].ann_file == "datasets/coco/annotations/instances_val2017.json"
    assert known["keypoints_coco_2017_val_100"].ann_file.endswith("/person_keypoints_val2017_100.json")
    assert {known[f"coco_2017_{part}"].img_dir for part in ("val_100", "val")} == {"datasets/coco/val2017"}
    assert known["coco_2017_test_dev"].ann_file.endswith("/image_info_test-dev2017.json")
    assert known["lvis_v0.5_train_top270"].ann_file == (
        "datasets/lvis/lvis_trainval_1230/lvis_v0.5_train_top270.json"
    )


def test_names_of_pascal_voc_and_cityscapes() -> None:
    cfg = load_config(None)
    folder = "datasets/voc/VOC2007"
    assert resolve_dataset(cfg, "voc_2007_test") == DatasetSpec(
        "voc_2007_test", "voc", f"{folder}/ImageSets/Main/test.txt", f"{folder}/JPEGImages"
    )
    assert resolve_dataset(cfg, "voc_2012_trainval").kind == "voc"
    assert resolve_dataset(cfg, "voc_2012_val_cocostyle").kind == "coco"
    folder = "datasets/cityscapes"
    places = f"{folder}/gtFine/val", f"{folder}/leftImg8bit/val"
    for form in ("poly", "mask"):
        kind = f"cityscapes_{form}"
        spec = resolve_dataset(cfg, f"{kind}_instance_val")
        assert spec == DatasetSpec(f"{kind}_instance_val", kind, *places)
        mini = resolve_dataset(cfg, f"{kind}_instance_minival")
        assert mini == DatasetSpec(f"{kind}_instance_minival", kind, *places, images=10)
    assert resolve_dataset(cfg, "cityscapes_fine_instanceonly_seg_val_cocostyle").kind == "coco"
    assert resolve_dataset(cfg, "cityscapes_mask:a/gtFine/val/@b").name == "val"


def test_own_classes_of_voc_data() -> None:
    entry = {"KIND": "voc", "ANN_FILE": "a.txt", "IMG_DIR": "b", "CLASSES": ["cat", "dog"]}
    cfg = load_config(None, ["DATASETS.REGISTER", str({"pets": entry})])
    assert resolve_dataset(cfg, "pets") == DatasetSpec("pets", "voc", "a.txt", "b", ("cat", "dog"))
    for change, message in (
        ({"KIND": "coco"}, "CLASSES is for KIND voc"),
        ({"CLASSES": ["cat", "cat"]}, "CLASSES names a class twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, ["DATASETS.REGISTER", str({"pets": entry | change})])


def test_published_classes_of_a_user_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.py"
    path.write_text(
        "class DatasetCatalog:\n"
        "    @staticmethod\n"
        "    def get(name):\n"
        "        if name == 'voc':\n"
        "            return dict(factory='PascalVOCDataset', args=dict(data_dir='V', split='val'))\n"
        "        args = dict(img_dir='L', ann_dir='G', split='val', mode=name, mini=3)\n"
        "        return dict(factory='CityScapesDataset', args=args)\n"
    )
    cfg = load_config(None, ["PATHS_CATALOG", str(path)])
    assert resolve_dataset(cfg, "voc") == DatasetSpec(
        "voc", "voc", "V/ImageSets/Main/val.txt", "V/JPEGImages"
    )
    assert resolve_dataset(cfg, "poly") == DatasetSpec("poly", "cityscapes_poly", "G/val", "L/val", images=3)
    with pytest.raises(ConfigError, match="has mode 'boxes'; known: poly, mask"):
        resolve_dataset(cfg, "boxes")


def test_inline_form() -> None:
    spec = resolve_dataset(load_config(None), "lvis:/data/a@b/train.json@/pictures")
    assert spec == DatasetSpec("train", "lvis", "/data/a@b/train.json", "/pictures")


@pytest.mark.parametrize("name", ["pascal:a.json@b", "lvis:@b", "lvis:a.json@", "a.json@b"])
def test_bad_inline_form(name: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form kind:annotations.json@image_folder"):
        resolve_dataset(load_config(None), name)


def test_registered_in_the_configuration() -> None:
    cfg = load_config(
        None, ["DATASETS.REGISTER", "{'coco_2014_train': {'KIND': 'lvis', 'ANN_FILE': 'a', 'IMG_DIR': 'b'}}"]
    )
    assert resolve_dataset(cfg, "coco_2014_train") == DatasetSpec("coco_2014_train", "lvis", "a", "b")


def test_unknown_name_lists_what_resembles_it() -> None:
    with pytest.raises(ConfigError, match="unknown data set 'coco_2014_trian'; did you mean coco_2014_train"):
        resolve_dataset(load_config(None), "coco_2014_trian")
    with pytest.raises(ConfigError, match="packaged names: .*lvis_v1_val"):
        resolve_dataset(load_config(None), "zzzz")
    for name in ("coco_2014_trian", "zzzz"):
        with pytest.raises(
            ConfigError, match=r"kind:annotations.json@image_folder \(kind coco, lvis, .*REGISTER"
        ):
            resolve_dataset(load_config(None), name)


def test_user_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.py"
    path.write_text(USER)
    cfg = load_config(None, ["PATHS_CATALOG", str(path)])
    assert resolve_dataset(cfg, "mine") == DatasetSpec("mine", "lvis", "a.json", "images")
    assert resolve_dataset(cfg, "coco_2014_train").kind == "coco"
    assert resolve_weight(cfg, "catalog://mine") == "/weights/mine.pth"
    assert resolve_weight(cfg, "catalog://ImageNetPretrained/MSRA/R-50").endswith("/MSRA/R-50.pkl")
    with pytest.raises(ConfigError, match="factory 'MyDataset'; known: COCODataset, LVISDataset"):
        resolve_dataset(cfg, "odd")
    with pytest.raises(ConfigError, match="'half' has no args ann_file"):
        resolve_dataset(cfg, "half")


def test_user_catalog_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "catalog.py"
    with pytest.raises(ConfigError, match="does not exist"):
        resolve_dataset(load_config(None, ["PATHS_CATALOG", str(path)]), "x")
    path.write_text("import nothing_of_that_name")
    with pytest.raises(ConfigError, match="fails: ModuleNotFoundError"):
        resolve_dataset(load_config(None, ["PATHS_CATALOG", str(path)]), "x")


def test_weights() -> None:
    cfg = load_config(None)
    assert resolve_weight(cfg, "a/b.pth") == "a/b.pth" and resolve_weight(cfg, "") == ""
    base = "https://dl.fbaipublicfiles.com/detectron"
    assert (
        resolve_weight(cfg, "catalog://ImageNetPretrained/MSRA/R-50-GN")
        == f"{base}/ImageNetPretrained/47261647/R-50-GN.pkl"
    )
    keypoint = resolve_weight(cfg, "catalog://Caffe2Detectron/COCO/37697547/e2e_keypoint_rcnn_R-50-FPN_1x")
    assert keypoint == (
        f"{base}/37697547/12_2017_baselines/e2e_keypoint_rcnn_R-50-FPN_1x.yaml.08_42_54.kdzV35ao/output/train/"
        "keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival/generalized_rcnn/model_final.pkl"
    )
    with pytest.raises(ConfigError, match="did you mean catalog://ImageNetPretrained/MSRA/R-50"):
        resolve_weight(cfg, "catalog://ImageNetPretrained/MSRA/R50")
