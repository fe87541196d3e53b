"""Data sets: files, images, categories, further files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from maskrcnn_benchmark.doctor.classes import check_classes
from maskrcnn_benchmark.doctor.data import check_data
from maskrcnn_benchmark.doctor.files import check_files

Edit = Callable[..., Path]


def _inline(annotations: Path, data: Path, part: str = "train") -> str:
    return f"('lvis:{annotations}@{data}/images/{part}',)"


def test_missing_files_name_the_path_and_the_fix(lst, the, tmp_path: Path) -> None:
    checkup = lst("LST.ANN_TRAIN", tmp_path / "no.json", "LST.IMG_VAL", tmp_path / "none")
    finding = the(check_data, checkup, "error", f"annotation file {tmp_path}/no.json does not exist")
    assert finding.keys == ("LST.ANN_TRAIN",) and "change LST.ANN_TRAIN" in finding.advice
    assert the(check_data, checkup, "error", "image folder").keys == ("LST.IMG_VAL",)
    assert "cannot be read (see data)" in the(check_classes, checkup, "note", "not checked").text


def test_missing_demo_data_is_made_by_a_command(lst, the) -> None:
    checkup = lst("LST.ANN_TRAIN", "nowhere/demo/train.json")
    assert "maskrcnn_benchmark.data.datasets.demo" in the(check_data, checkup, "error", "train.json").advice


def test_data_in_other_layouts(plain, the, dataset_trees, tmp_path: Path) -> None:
    images = {f"00{n}": [("dog", (5, 5, 20, 20), n % 2)] for n in range(2)}
    listed = dataset_trees.make_voc(tmp_path, "train", images)
    checkup = plain("DATASETS.TRAIN", f"('voc:{listed}@{tmp_path}/JPEGImages',)")
    assert "2 images, 2 objects, 20 categories" in the(check_data, checkup, "ok", "train.txt (VOC").text
    assert the(check_data, checkup, "note", "1 crowd regions (or difficult objects)")
    missing = plain("DATASETS.TRAIN", f"('voc:{tmp_path}/no.txt@{tmp_path}/JPEGImages',)")
    assert the(check_data, missing, "error", f"list of images {tmp_path}/no.txt does not exist")
    street = {"ulm/ulm_0": [("car", dataset_trees.rectangle(5, 5, 20, 20))]}
    dataset_trees.make_cityscapes(tmp_path, "train", street)
    folders = f"{tmp_path}/gtFine/train@{tmp_path}/leftImg8bit/train"
    checkup = plain("DATASETS.TRAIN", f"('cityscapes_mask:{folders}',)")
    assert the(check_data, checkup, "ok", "gtFine/train (CITYSCAPES, a folder): 1 images, 1 objects")
    assert the(check_data, checkup, "ok", "1 of 1 images open and have the recorded sizes")


def test_unknown_name_and_no_data(plain, the) -> None:
    finding = the(check_data, plain("DATASETS.TRAIN", "('coco_2014_trian',)"), "error", "unknown data set")
    assert "coco_2014_train" in finding.text
    assert the(check_data, plain("DATASETS.TRAIN", "()"), "error", "no training data").keys == (
        "DATASETS.TRAIN",
    )


def test_a_damaged_annotation_file(plain, the, tmp_path: Path, data: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    checkup = plain("DATASETS.TRAIN", _inline(broken, data))
    assert "is not valid JSON" in the(check_data, checkup, "error", str(broken)).text


def test_a_file_without_objects(plain, the, edited: Edit, data: Path) -> None:
    path = edited(lambda content: content.update(annotations=[]))
    assert the(check_data, plain("DATASETS.TRAIN", _inline(path, data)), "error", "holds no object")


def test_boxes_out_of_the_image_and_useless_ones(plain, the, edited: Edit, data: Path) -> None:
    def spoil(content: dict) -> None:
        content["annotations"][0]["bbox"] = [60, 10, 40, 20]
        content["annotations"][1]["bbox"][2] = 0.5

    checkup = plain("DATASETS.TRAIN", _inline(edited(spoil), data))
    assert "1 boxes reach more than a pixel out" in the(check_data, checkup, "warning", "reach").text
    assert the(check_data, checkup, "note", "1 boxes with a side of at most one pixel and 0 crowd regions")


def test_missing_images_and_images_of_another_size(plain, the, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(data / "images" / "train", folder)
    first, second = sorted(folder.iterdir())[:2]
    first.unlink()
    Image.new("RGB", (20, 30)).save(second)
    name = f"('lvis:{data}/train.json@{folder}',)"
    checkup = plain("DATASETS.TRAIN", name)
    assert str(first) in the(check_data, checkup, "error", "1 of 24 images that were looked for").text
    assert "20 x 30" in the(check_data, checkup, "error", "1 of 23 images that were opened").text
    checkup = plain("DATASETS.TRAIN", name, "DATALOADER.BAD_IMAGE", "skip")
    assert the(check_data, checkup, "warning", "were opened cannot be used")


def test_training_and_testing_on_the_same_file(plain, the, data: Path) -> None:
    checkup = plain("DATASETS.TEST", _inline(data / "train.json", data))
    assert the(check_data, checkup, "warning", "both trained and tested on").keys == ("DATASETS.TEST",)


def test_number_of_classes(plain, the) -> None:
    checkup = plain("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81, "DATASETS.TEST", "()")
    finding = the(check_classes, checkup, "error", "NUM_CLASSES is 81")
    assert finding.advice == "set MODEL.ROI_BOX_HEAD.NUM_CLASSES 7"


def test_test_data_with_another_order_of_categories(plain, the, edited: Edit, data: Path) -> None:
    path = edited(lambda content: content["categories"].reverse(), "val")
    assert the(check_classes, plain("DATASETS.TEST", _inline(path, data, "val")), "note", "in another order")


def test_test_data_with_other_categories(plain, the, edited: Edit, data: Path) -> None:
    path = edited(lambda content: content["categories"][0].update(name="unicorn"), "val")
    finding = the(check_classes, plain("DATASETS.TEST", _inline(path, data, "val")), "error", "label 1 is")
    assert "'unicorn'" in finding.text and "same categories" in finding.advice


def test_phases_that_do_not_add_up(lst, the) -> None:
    finding = the(check_classes, lst("LST.STEP_SIZE", 3), "error", "but the annotations have 6")
    assert finding.keys == ("LST.BASE_SIZE", "LST.STEP_SIZE")


def test_a_class_order_that_is_not_that_of_the_data(lst, the, tmp_path: Path) -> None:
    order = tmp_path / "order.json"
    order.write_text("[1, 2, 3]")
    assert the(check_classes, lst("LST.SORTED_IDS", order), "error", "must name each of the 6 categories")
    order.write_text(json.dumps([6, 5, 4, 3, 2, 1]))
    assert the(check_classes, lst("LST.SORTED_IDS", order), "note", "is not ordered by the number of objects")


def test_validation_categories(lst, the, edited: Edit) -> None:
    gone = edited(lambda c: c.update(categories=c["categories"][1:], annotations=[]), "val")
    checkup = lst("LST.ANN_VAL", gone)
    assert the(check_classes, checkup, "error", "lacks 1 of the training categories: ids 1")
    assert the(check_classes, checkup, "note", "6 of 6 classes have no validation object")
    named = edited(lambda c: c["categories"][0].update(name="other"), "val")
    assert the(check_classes, lst("LST.ANN_VAL", named), "error", "1 category ids have different names")


def test_a_class_without_training_objects(lst, the, edited: Edit) -> None:
    def empty(content: dict) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 3]

    checkup = lst("LST.ANN_TRAIN", edited(empty))
    assert the(check_classes, checkup, "warning", "1 classes have no usable training object")


def test_an_earlier_run_with_other_phases(lst, the, tmp_path: Path) -> None:
    plan = lst().plan
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps(plan.to_json()))
    assert the(check_classes, lst("OUTPUT_DIR", folder), "note", "the command continues it")
    assert the(
        check_classes, lst("OUTPUT_DIR", folder, "LST.STEP_SIZE", 1), "error", "other classes or phases"
    )


def test_files_of_published_plans(lst, the, worst, tmp_path: Path) -> None:
    pairs = ["LST.REPLAY.MODE", "file", "LST.REPLAY.FILE_IMAGES", tmp_path / "i{phase}.json"]
    pairs += ["LST.REPLAY.FILE_CLASSES", tmp_path / "c{phase}.json"]
    assert len(worst(check_files, lst(*pairs))) == 4
    for phase in (1, 2):
        (tmp_path / f"i{phase}.json").write_text("[[0, 1], [2, 3], [4, 5]]")
        (tmp_path / f"c{phase}.json").write_text("[[1, 1], [2, 2], [3, 3]]")
    finding = the(check_files, lst(*pairs), "error", "phase 1")
    assert "cannot split a batch" in finding.text
    assert worst(check_files, lst(*pairs, "SOLVER.IMS_PER_BATCH", 6)) == []


def test_further_files(lst, plain, the, tmp_path: Path) -> None:
    missing = tmp_path / "logits.json"
    assert "LST.DISTILL.FILE" in str(list(check_files(lst("LST.DISTILL.FILE", missing)))[0])
    checkup = plain("DATASETS.TRAIN", "('mine',)", "PATHS_CATALOG", missing)
    assert the(check_files, checkup, "error", "PATHS_CATALOG").advice == "correct the file or the path"


def test_sound_data_has_no_problem(plain, lst, worst) -> None:
    for checkup in (plain(), lst()):
        for check in (check_data, check_classes, check_files):
            assert worst(check, checkup) == []
