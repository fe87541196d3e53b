"""Files of `torch.save`, read without torch's reader: whole, or refused with the name of the tensor.

The zip format (torch 1.6 and later) has a CRC-32 for every storage, which is compared while the storage is
read. The format before has none; there every storage must be present with its full length, and nothing else.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from torch import Tensor

from maskrcnn_benchmark.checkpoint.content import checked_content, walk
from maskrcnn_benchmark.checkpoint.pickle_machine import Machine, PickleError, ShortError, short
from maskrcnn_benchmark.checkpoint.torch_objects import Storage, TorchObjects
from maskrcnn_benchmark.checkpoint.zip_archive import (
    ArchiveError,
    Member,
    read_at,
    read_directory,
    read_member,
)

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_PICKLE = 1 << 28
_FIRST_HEAD = 1 << 20  # bytes of an old file in which its pickles are looked for first
_MAX_RECORD = 1 << 12
_THREADS = 4
Feed = Callable[[memoryview], object]


class ChecksumError(ValueError):
    """A part of a file that was changed after it was written; the text names the part."""


def read_zip(file: int, size: int, *, meta: bool, verify: bool = True) -> Any:
    """Content of a torch file in the zip format.

    Args:
        file: descriptor of an open file of `size` bytes.
        meta: make tensors without values.
        verify: compare the checksums also of storages whose values are not read.

    Raises:
        ArchiveError, PickleError, OSError: it is damaged, hostile, or no torch file.
        ChecksumError: a checksum is wrong.
    """
    members = read_directory(file, size)
    prefix, pickled = _pickle_member(members)
    data = memoryview(bytearray(pickled.size))
    if not read_member(file, pickled, data):
        raise ChecksumError(f"the checksum of {short(pickled.name)} is wrong")
    sizes = {name: member.size for name, member in members.items()}
    objects = TorchObjects(
        meta=meta,
        limit=size,
        copied=2 * len(data),
        size_of=lambda key: sizes.get(f"{prefix}/data/{key}"),
    )
    content = checked_content(Machine(bytes(data), objects.find, persistent=objects.persistent).load())
    targets = {f"{prefix}/data/{key}": storage.data for key, storage in objects.storages.items()}
    rest = [m for name, m in members.items() if name != pickled.name and (verify or name not in targets)]
    wrong = _read_members(file, rest, targets)
    if wrong is not None:
        key = wrong.name.removeprefix(f"{prefix}/data/")
        raise ChecksumError(
            f"the checksum of {short(wrong.name)}{_tensors_on(content, objects, key)} is wrong"
        )
    if _byte_order(file, members.get(f"{prefix}/byteorder")) != sys.byteorder:
        for storage in objects.storages.values():
            if storage.data is not None:
                storage.data.untyped_storage().byteswap(storage.dtype)
    return content


def _pickle_member(members: dict[str, Member]) -> tuple[str, Member]:
    """Folder in the archive and member of the pickle."""
    names = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ArchiveError("it has no data.pkl, so torch.save did not write it")
    prefix = names[0].partition("/")[0]
    if f"{prefix}/constants.pkl" in members:
        raise ArchiveError("it is a TorchScript program, not named tensors")
    if members[names[0]].size > _MAX_PICKLE:
        raise ArchiveError(f"its data.pkl has more than {_MAX_PICKLE} bytes")
    return prefix, members[names[0]]


def _byte_order(file: int, member: Member | None) -> str:
    """Byte order of the values; files of torch 1.13 and before do not say it."""
    if member is None:
        return "little"
    content = bytearray(min(member.size, _MAX_RECORD))
    read_at(file, memoryview(content), member.start)
    if bytes(content) not in (b"little", b"big"):
        raise ArchiveError("its byte order is neither little nor big")
    return bytes(content).decode()


def _read_members(file: int, members: list[Member], targets: dict[str, Tensor | None]) -> Member | None:
    """Read members into their targets, if any; returns the first one whose checksum is wrong."""

    def read(member: Member) -> bool:
        target = targets.get(member.name)
        return read_member(file, member, None if target is None else _bytes_of(target))

    threads = min(_THREADS, len(os.sched_getaffinity(0)))
    if threads == 1:
        return next((member for member in members if not read(member)), None)
    with ThreadPoolExecutor(threads) as pool:
        good = list(pool.map(read, members))
    return next((member for member, right in zip(members, good, strict=True) if not right), None)


def _bytes_of(data: Tensor) -> memoryview:
    """The memory of a tensor (N,) uint8."""
    return memoryview(cast(Any, data.numpy()))


def _tensors_on(content: Any, objects: TorchObjects, key: str) -> str:
    """ " (name)" of the tensors that lie on a storage; nothing where there are none."""
    names: list[str] = []

    def collect(leaf: Any, path: Callable[[], str]) -> None:
        if isinstance(leaf, Tensor) and objects.key_of(leaf) == key:
            names.append(path())

    walk(content, collect)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f" ({names[0]}{more})" if names else ""


def read_legacy(file: int, size: int, *, meta: bool, feed: Feed | None = None) -> Any:
    """Content of a torch file in the format before zip: five pickles, then the storages.

    Args:
        file: descriptor of an open file of `size` bytes.
        meta: make tensors without values.
        feed: gets all bytes of the file in order. Without it (or with `meta`) they are not all read.

    Raises:
        PickleError, OSError: it is damaged, hostile, or no torch file; a storage is missing, too short or
            not referred to.
    """
    head = _FIRST_HEAD
    while True:
        data = memoryview(bytearray(min(head, size)))
        read_at(file, data, 0)
        objects = TorchObjects(meta=meta, limit=size, copied=2 * size)
        machine = Machine(bytes(data), objects.find, persistent=objects.persistent)
        try:
            content, keys = _old_pickles(machine)
            break
        except ShortError:
            if head >= min(size, _MAX_PICKLE):
                raise
            head *= 16
    start = machine.position
    if feed is not None:
        feed(data[:start])
    for storage, header, first in _old_storages(
        file, size, start, _in_order(content, objects, keys), content, objects
    ):
        if storage.data is not None:
            target = _bytes_of(storage.data)
            read_at(file, target, first)
            if feed is not None:
                feed(memoryview(header))
                feed(target)
    return content


def _old_pickles(machine: Machine) -> tuple[Any, Any]:
    """Content and keys of the storages, behind the marks that make it a torch file."""
    magic = machine.load()
    if type(magic) is not int or magic != _MAGIC:
        raise PickleError("its first number is not that of torch")
    protocol = machine.load()
    if type(protocol) is not int or protocol != _PROTOCOL:
        raise PickleError(f"its version is {short(protocol)}, not {_PROTOCOL}")
    machine.load()  # properties of the host
    return checked_content(machine.load()), checked_content(machine.load())


def _in_order(content: Any, objects: TorchObjects, keys: Any) -> list[Storage]:
    """Storages in the order of the file, which must have exactly those that are referred to."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise PickleError("its list of storages is damaged")
    missing = next((key for key in objects.storages if key not in set(keys)), None)
    if missing is not None:
        raise PickleError(f"storage {short(missing)}{_tensors_on(content, objects, missing)} is missing")
    if len(keys) != len(objects.storages):
        raise PickleError("it has storages that are not referred to, or one twice")
    return [objects.storages[key] for key in keys]


def _old_storages(
    file: int, size: int, start: int, storages: list[Storage], content: Any, objects: TorchObjects
) -> Iterator[tuple[Storage, bytearray, int]]:
    """(storage, the 8 bytes in front of it, its first byte) after a check that all of them are whole."""
    located = []
    position = start
    for storage in storages:
        header = bytearray(8)
        whole = position + 8 + storage.nbytes <= size
        if whole:
            read_at(file, memoryview(header), position)
        if not whole or struct.unpack("<q", header)[0] != storage.numel:
            name = _tensors_on(content, objects, storage.key)
            problem = "has another length than its tensors say" if whole else "is cut short"
            raise PickleError(f"storage {short(storage.key)}{name} {problem}")
        located.append((storage, header, position + 8))
        position += 8 + storage.nbytes
    if position != size:
        raise PickleError(f"{size - position} bytes follow behind the last storage")
    yield from located
