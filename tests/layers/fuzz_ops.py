"""Random, mostly bad argument sets for the native operations; a program, so that a crash ends only it:

    python tests/layers/fuzz_ops.py OPERATION COUNT SEED

Types follow the schema; everything else (shapes, dtypes, strides, values, sizes) is sampled at random, with a
fraction of sensible values so that calls get past the first checks. An argument set may be refused with one
of the ordinary exceptions, or give a result. Before each call its index is written to standard output, so
that the last line names the set that crashed. Ends with "survived COUNT: ACCEPTED accepted".
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.native import load_ops

DTYPES = [torch.float32] * 8 + [torch.float64, torch.float16, torch.bfloat16]
ODD_DTYPES = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]
NUMBERS = [0.0, -0.0, 1.0, 0.5, -1.0, 7.25, 224.0, 1e-30, 1e9, -1e9, 1e30, 3e38, 2.0**31, 2.0**63]
SPECIAL = [float("nan"), float("inf"), float("-inf")]
# Sizes are small, or so large that memory for them is refused at once.
INTEGERS = [0, 1, 2, 3, 4, 5, 7, 8, -1, -2, 64, -(2**31), 2**31 - 1, 2**31, 2**62, -(2**63), 2**63 - 1]
# Small enough that an accepted call is quick.
VALID_SIZES = {"group_size": 2, "pooled_size": 2, "part_size": 2, "sample_per_part": 3, "output_dim": 1}
VALID_SIZES |= {"stride": 1, "padding": 1, "dilation": 1, "grid_size": 2}
TAIL = {"boxes": 4, "rois": 5, "coords": 2}
RANK = {"boxes": 2, "rois": 2, "coords": 2, "input": 4, "grad": 4, "features": 4, "masks": 3}
RANK |= {"logits": 2, "argmax": 4, "offset": 4, "mask": 4, "weight": 4, "trans": 4}
INTEGER_TENSORS = {"labels", "targets", "argmax", "polygon_offsets", "instance_offsets", "instance_of_box"}
INTEGER_TENSORS |= {"target_index"}
HUGE = {"height", "width", "pooled_h", "pooled_w", "size", "batch", "channels", "heights", "widths"}
HUGE |= {"resized_h", "resized_w"}


class Fuzzer:
    """Samples arguments; `common` is the row count that tensors of one call usually have in common."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.common = 3
        self.shape = [1, 2, 6, 7]
        self.levels = 2
        self.fixed: dict[str, list[int]] = {}
        self.dtype = torch.float32
        self.flat = False

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def tensor(self, name: str) -> Tensor:
        """A tensor that usually fits the argument `name`."""
        rank = 2 if name == "grad" and self.flat else RANK.get(name, 1)
        if rank == 4:
            pooled = name in ("grad", "argmax")
            sizes = [self.common, self.shape[1], 2, 3] if pooled else list(self.shape)
        else:
            sizes = [self.common, *[self.random.randint(1, 9)] * (rank - 2), TAIL.get(name, 5)][:rank]
        if name == "masks":
            sizes[2] = sizes[1]
        if self.fixed.get(name):
            sizes = list(self.fixed[name])
        if name in ("polygon_offsets", "instance_offsets"):
            sizes[0] += self.chance(0.8)
        if self.chance(0.1):
            sizes = [self.random.choice([0, 0, 1, 2, 5]) for _ in range(self.random.randint(0, 5))]
        dtype = self.random.choice(ODD_DTYPES if self.chance(0.03) else DTYPES)
        if self.fixed and self.chance(0.9):
            dtype = self.dtype
        if name == "coords" and self.chance(0.9):
            dtype = torch.float64
        if name in INTEGER_TENSORS and self.chance(0.95):
            values = torch.randint(-1, 6, sizes, generator=self.generator)
            if self.chance(0.8):
                values = values.clamp(0, max(self.common - 1, 0))
            if name == "argmax" and self.chance(0.9):
                values = values.int()
            if name == "targets" and name in self.fixed and self.chance(0.9):
                values = values > 0
            if "offsets" in name and self.chance(0.8) and values.numel() > 1:
                values = values.sort().values
                values[..., 0], values[..., -1] = 0, self.common
            return self.spoil(values) if self.chance(0.05) else values
        values = torch.rand(sizes, generator=self.generator, dtype=torch.float64) * self.random.choice(
            [1, 9, 90]
        )
        if name == "coords" and self.chance(0.3):
            values = (values - values.mean()) * 10.0 ** self.random.uniform(0, 9)  # a far outline
        if name == "rois" and values.dim() == 2 and values.shape[1] and self.chance(0.9):
            values[:, 0] = 0
        return self.spoil(values if not self.chance(0.3) else self.poison(values)).to(dtype)

    def poison(self, values: Tensor) -> Tensor:
        """Some values replaced by extreme ones."""
        flat = values.flatten()
        for _ in range(min(len(flat), self.random.randint(1, 4))):
            flat[self.random.randrange(len(flat))] = self.random.choice(NUMBERS + SPECIAL)
        return flat.reshape(values.shape)

    def spoil(self, values: Tensor) -> Tensor:
        """Sometimes the same values with other strides, or none at all."""
        if values.dim() >= 2 and self.chance(0.15):
            return values.transpose(0, -1).contiguous().transpose(0, -1)
        if values.dim() == 4 and self.chance(0.3):
            return values.contiguous(memory_format=torch.channels_last)
        if values.dim() >= 1 and values.shape[0] == 1 and self.chance(0.3):
            return values.expand(self.random.choice([1, 3]), *values.shape[1:])
        return values

    def integer(self, name: str) -> int:
        """A plausible int in four of five calls."""
        if self.chance(0.8):
            plausible = {
                "sampling_ratio": 2,
                "first_level": 2,
                "canonical_level": 4,
                "padding": 1,
                "batch": 1,
            }
            plausible |= {"channels": self.shape[1], "height": 6, "width": 7, "levels": 4} | VALID_SIZES
            return plausible.get(name, self.random.randint(1, 9))
        value = self.random.choice(INTEGERS)
        # A legal but enormous size would take all memory, not crash the operation.
        return value if name not in HUGE or abs(value) < 2**31 - 1 or value > 2**60 else -value

    def float_value(self) -> float:
        """A plausible float in three of four calls."""
        return self.random.choice([0.5, 0.25, 224.0, 1.0]) if self.chance(0.75) else self.extreme()

    def extreme(self) -> float:
        """A value of the lists above."""
        return float(self.random.choice(NUMBERS + SPECIAL))

    def argument(self, kind: str, name: str) -> Any:
        """An argument of a schema type."""
        count = self.levels if self.chance(0.9) else self.random.choice([0, 1, 3, 17])
        if kind == "Tensor":
            return self.tensor(name)
        if kind == "List[Tensor]":
            return [self.tensor(name) for _ in range(count)]
        if kind == "List[float]" and self.chance(0.85):
            return [2.0 ** -(2 + i) for i in range(count)]
        if kind == "List[float]":
            return [self.float_value() for _ in range(count)]
        if kind == "Optional[Tensor]":
            return self.tensor(name) if self.chance(0.6) else None
        if kind == "List[bool]":
            length = self.fixed[name][0] if self.chance(0.95) else count
            return [self.chance(0.6) for _ in range(length)]
        if kind == "List[int]" and name in VALID_SIZES and self.chance(0.9):
            return [self.integer(name)] * 2
        if kind in ("List[int]", "List[SymInt]"):
            return [self.integer(name) for _ in range(count)]
        if kind in ("int", "SymInt"):
            return self.integer(name)
        if kind == "float":
            return self.float_value()
        assert kind == "bool", f"a new argument type needs a line here: {kind}"
        return self.chance(0.5)

    def fitting_shapes(self, name: str) -> dict[str, list[int]]:
        """Shapes of the arguments of some operations that fit each other and `VALID_SIZES`."""
        images, channels, height, width = self.shape
        if name.startswith("deform_conv2d"):
            groups = self.random.choice([1, channels]) if channels else 1
            shapes = {"input": self.shape, "weight": [3 * groups, channels // groups, 3, 3]}
            shapes["offset"] = [images, 18 * groups, height, width]
            shapes["mask"] = [images, 9 * groups, height, width]
            return shapes | {"bias": [3 * groups], "grad": [images, 3 * groups, height, width], "needed": [4]}
        if name.startswith("deform_psroi"):
            shapes = {"input": [images, 4, height, width], "rois": [self.common, 5], "needed": [2]}
            return shapes | {"trans": [self.common, 2, 2, 2], "grad": [self.common, 1, 2, 2]}
        if name.startswith("crop_split"):
            return {"data": [4, height, width, self.common], "grad": [height, width, self.common]}
        if name.startswith(("quadrant", "assemble")):
            planes = [self.common, height, width]
            shapes = {"coefficients": [self.common, 4 * channels], "basis": [channels, height, width]}
            shapes |= {"targets": [self.common, height, width], "target_index": [self.common]}
            return shapes | {"masks": planes, "grad": [self.common] if "loss" in name else planes}
        return {}

    def arguments(self, schema: Any) -> list[Any]:
        """A set for one call."""
        self.common = self.random.choice([0, 1, 1, 2, 3, 5, 40, 200])
        self.shape = [self.random.randint(1, 2), self.random.choice([0, 1, 2, 17, 33]), 6, 7]
        self.levels = self.random.choice([1, 2, 4])
        self.dtype = self.random.choice(DTYPES)
        self.fixed = self.fitting_shapes(schema.name.split("::")[1])
        self.flat = any(a.name == "logits" for a in schema.arguments)  # gradients are (N, C)
        return [self.argument(str(a.type), a.name) for a in schema.arguments]


def main(name: str, count: int, seed: int) -> None:
    """Call one operation `count` times."""
    load_ops()
    torch.set_num_threads(1)
    op, fuzzer, accepted = getattr(torch.ops.maskrcnn_benchmark, name).default, Fuzzer(seed), 0
    for index in range(count):
        arguments = fuzzer.arguments(op._schema)
        print(f"\r{index}", end="", flush=True)
        try:
            result = op(*arguments)
        except (ValueError, TypeError, RuntimeError, IndexError, OverflowError) as error:
            if "INTERNAL ASSERT" in str(error):
                raise
            continue
        accepted += 1
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            float(torch.as_tensor(tensor).double().sum())  # reads every element of the result
    print(f"\nsurvived {count}: {accepted} accepted", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
