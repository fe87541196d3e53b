"""Store the outputs of a phase's model on the new-class boxes of the next step, for distillation.

    python tools/dump_distillation.py --config-file configs/lst/released/base.yaml \\
        --weights base/model_final.pth --annotations split/lvis_v0.5_train_step1.json \\
        --images datasets/coco/train2017 --sorted-ids split/lvis_sorted_id_all.json \\
        --store distill_step1 --json distill_logits_step1_160.json
    torchrun --nproc_per_node 8 tools/dump_distillation.py ...    # images are split over the ranks

The classes that the model does not know are the new ones. Give --store, --json, or both: a store is small and
memory-mapped, the JSON file is the released format.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.launch import add_launch_arguments, distributed
from maskrcnn_benchmark.incremental.growth.checkpoint import classifier_outputs
from maskrcnn_benchmark.incremental.released.run import dump_released
from maskrcnn_benchmark.utils.comm import broadcast_object, get_rank, is_main_process
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", metavar="FILE", type=expand_path, required=True, help="yaml file of the model"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=expand_path,
        required=True,
        help="final checkpoint of the phase before",
    )
    parser.add_argument(
        "--annotations", metavar="FILE", type=expand_path, required=True, help="training file of the step"
    )
    parser.add_argument(
        "--images", "--pictures", metavar="DIR", type=expand_path, required=True, help="folder of its images"
    )
    parser.add_argument(
        "--sorted-ids", metavar="FILE", type=expand_path, required=True, help="category ids by label"
    )
    parser.add_argument("--store", metavar="DIR", type=path_argument, help="folder of the store")
    parser.add_argument("--json", metavar="FILE", type=path_argument, help="released JSON file")
    parser.add_argument("--phase", type=int, default=-1, help="index of the step, recorded in the store")
    add_launch_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args()


def main() -> None:
    """Parse, join the process group, store."""
    args = parse_arguments()
    if args.store is None and args.json is None:
        raise ConfigError("give --store DIR, --json FILE, or both")
    outputs = classifier_outputs(read_checkpoint(args.weights)["model"], args.weights)
    derived = {
        "LST.ENABLED": False,
        "LST.PHASE": args.phase,
        "MODEL.GENERATE_DISTILL": True,
        "MODEL.WEIGHT": args.weights,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": outputs,
        "MODEL.NUM_DISTILL_CLASSES": outputs - 1,
        "DATASETS.TRAIN": (f"lvis:{args.annotations}@{args.images}",),
        "DATASETS.SORTED_IDS": args.sorted_ids,
    }
    cfg = load_config(
        args.config_file, [*(str(item) for pair in derived.items() for item in pair), *args.opts]
    )
    with distributed(cfg.MODEL.DEVICE, args.local_rank):
        logger = setup_logger(None, get_rank())
        scratch = tempfile.TemporaryDirectory() if args.store is None and is_main_process() else nullcontext()
        with scratch as folder:
            dump_released(cfg, args.store or Path(broadcast_object(folder)), args.json)
        logger.info("wrote %s", " and ".join(str(path) for path in (args.store, args.json) if path))


if __name__ == "__main__":
    run_cli(main)
