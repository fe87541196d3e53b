"""Mutations that know the structure of what they change: bytes, lines of text, values of JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

INTERESTING = [0, 1, 0x7F, 0x80, 0xFE, 0xFF]


class Raw(str):
    """Text that stands in a JSON file as it is, without quotes."""


def values(rng: random.Random) -> Any:
    """A value of an unexpected type or size."""
    return rng.choice(_VALUES)(rng)


_VALUES: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.choice([True, False, "true", "false", "0", "Unspecified"]),
    lambda rng: rng.choice([0, -1, 1, 2, 255, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1]),
    lambda rng: rng.choice([0.5, -0.0, 1e-320, 1e300, -1e300, 3.0000000001, 1e19]),
    lambda rng: Raw(
        rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E400", "-0", "01", "0x10"])
    ),
    lambda rng: Raw(rng.choice(["9", "-9", "1."]) * 1 + "9" * rng.choice([30, 400, 5000])),
    lambda rng: rng.choice(["", "a", "\x00", "\x1b[31m", "../../x", "=1+1", "é" * 50, "x" * 100_000]),
    lambda rng: Raw(rng.choice(['"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\ufeff"'])),
    lambda rng: rng.choice([[], {}, [[]], [{}], [None], [[None]], {"": None}]),
    lambda rng: [rng.uniform(-10, 100) for _ in range(rng.choice([1, 2, 3, 5, 6, 7, 60]))],
    lambda rng: [[rng.uniform(-1e4, 1e4) for _ in range(rng.choice([2, 3, 4, 5, 6, 8, 9]))]],
    lambda rng: [[rng.choice([1e9, -1e9, 2**40, 1e-9, 0]) for _ in range(8)]],
    lambda rng: {
        "size": [rng.choice([0, -1, 3, 2**31, 2**33]), 4],
        "counts": rng.choice(["", "0", [0], [12]]),
    },
    lambda rng: {"size": [40, 40], "counts": [rng.randint(0, 900) for _ in range(rng.randint(1, 6))]},
    lambda rng: Raw("[" * (depth := rng.choice([50, 900, 1200, 20_000])) + "]" * depth),
    lambda rng: Raw('{"a":' * (depth := rng.choice([50, 900, 1200, 20_000])) + "1" + "}" * depth),
]


def mutate_json(rng: random.Random, tree: Any) -> str:
    """Text of a copy of `tree` with one to three changes."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent, key = _position(rng, tree)
        if parent is None:
            tree = values(rng)
            break
        change = rng.randrange(8)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change == 1:
            parent[_new_key(rng, key)] = parent.pop(key)
        elif change == 2:
            other, name = _position(rng, tree)
            if other is not None:
                parent[key] = copy.deepcopy(other[name])
        elif change == 3:
            parent[key] = [parent[key]] if rng.random() < 0.5 else str(parent[key])
        else:
            parent[key] = values(rng)
    return dump(tree)


def _new_key(rng: random.Random, key: str) -> str:
    return rng.choice([key.upper(), f"{key} ", "", "\x00", key[:-1]])


def _position(rng: random.Random, tree: Any) -> tuple[Any, Any]:
    """A random container and a key of it; deeper ones are as likely as flat ones."""
    parent, key, node = None, None, tree
    while isinstance(node, (dict, list)) and node and not (parent is not None and rng.random() < 0.2):
        parent = node
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    return parent, key


def dump(tree: Any) -> str:
    """JSON text, with `Raw` values as they are."""
    raws: list[str] = []

    def mark(node: Any) -> Any:
        if isinstance(node, Raw):
            raws.append(str(node))
            return f"@raw{len(raws) - 1}@"
        if isinstance(node, dict):
            return {key: mark(value) for key, value in node.items()}
        return [mark(value) for value in node] if isinstance(node, list) else node

    text = json.dumps(mark(tree))
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    return text


def mutate_text(rng: random.Random, text: str) -> bytes:
    """Bytes of text with changes that keep it mostly readable: cut, doubled, swapped, foreign marks."""
    data = text.encode("utf-8", "surrogatepass")
    change = rng.randrange(7)
    if change == 0:
        return data[: rng.randrange(len(data) + 1)]
    if change == 1:
        return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" \n\t", b"//x\n"]) + data
    if change == 2:
        return text.encode("utf-16" if rng.random() < 0.5 else "utf-32", "surrogatepass")
    if change == 3:
        start = rng.randrange(len(data) + 1)
        token = rng.choice(
            [b",", b"]", b"}", b'"', b"\\", b"\x00", b"\xff", b"NaN", b"9" * 400, b"[" * 3000, b"\r"]
        )
        return data[:start] + token + data[start:]
    return mutate_bytes(rng, data)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few changes: flipped bits, other values, cut, removed, doubled or moved pieces."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not result:
            break
        at = _offset(rng, len(result))
        change = rng.randrange(7)
        if change <= 1:
            result[at] ^= 1 << rng.randrange(8)
        elif change == 2:
            result[at] = rng.choice(INTERESTING)
        elif change == 3:
            width = rng.choice([2, 4, 8])
            result[at : at + width] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * width
        elif change == 4:
            del result[at : at + rng.choice([1, 2, 8, 100, len(result)])]
        elif change == 5:
            piece = result[at : at + rng.choice([1, 4, 16, 256])]
            result[at:at] = piece * rng.choice([1, 2, 20])
        else:
            result[at:at] = rng.randbytes(rng.choice([1, 4, 32]))
    return bytes(result)


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one to three flipped bits, as a fault of a disk or of memory leaves them."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result) if bytes(result) != data else flip_bits(rng, data)


def _offset(rng: random.Random, size: int) -> int:
    """A position; half of them in the head or the tail, where formats keep their structure."""
    kind = rng.random()
    if kind < 0.35:
        return min(size - 1, int(rng.expovariate(1 / 40)))
    if kind < 0.5:
        return max(0, size - 1 - int(rng.expovariate(1 / 40)))
    return rng.randrange(size)
