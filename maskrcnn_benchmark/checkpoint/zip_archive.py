"""The zip container of torch files: strict about its structure, and every byte covered by a checksum.

Members are stored without compression, lie one behind the other, and have one name each; whatever departs
from that is refused, so that nothing can expand, and one byte belongs to one member. Format: PKWARE's
APPNOTE.TXT, sections 4.3 and 4.4.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from maskrcnn_benchmark.checkpoint.pickle_machine import short

ZIP_MARK = b"PK"
"""Begin of every zip file."""
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_MEMBERS = 1 << 18
_MAX_DIRECTORY = 1 << 26
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _LATER = 1, 8  # flags; with the second, sum and sizes stand behind the data
_BLOCK = 1 << 18  # bytes that are summed while they are in the cache


class ArchiveError(ValueError):
    """A zip file that torch did not write, or that is damaged; the text says how."""


@dataclass(frozen=True)
class Member:
    """A member of the archive: its name, its CRC-32, and where its bytes are in the file."""

    name: str
    crc: int
    start: int
    size: int


def read_at(file: int, target: memoryview, start: int) -> None:
    """Fill `target` from a file descriptor, from byte `start` on; OSError when the file ends before."""
    done = 0
    while done < len(target):
        count = os.preadv(file, [target[done:]], start + done)
        if count <= 0:
            raise OSError(f"the file ends after {start + done} bytes")
        done += count


def read_member(file: int, member: Member, target: memoryview | None = None) -> bool:
    """Read a member into `target`, or nowhere, in one pass; returns whether its checksum is right."""
    scratch = None if target is not None else memoryview(bytearray(min(_BLOCK, member.size)))
    crc = 0
    for first in range(0, member.size, _BLOCK):
        count = min(_BLOCK, member.size - first)
        block = target[first : first + count] if target is not None else scratch[:count]  # type: ignore[index]
        read_at(file, block, member.start + first)
        crc = zlib.crc32(block, crc)
    return crc == member.crc


def read_directory(file: int, size: int) -> dict[str, Member]:
    """Members by name, in the order of the file.

    Args:
        file: descriptor of an open file of `size` bytes.

    Raises:
        ArchiveError: it is no whole zip file of uncompressed members with different names.
    """
    entries, start, end = _end_record(file, size)
    directory = _bytes_at(file, start, end - start)
    members: list[tuple[int, Member]] = []  # offset of the header in front of it, member
    position = 0
    for _ in range(entries):
        if position + _ENTRY.size > len(directory):
            raise ArchiveError("its list of members is cut short")
        fields = _ENTRY.unpack_from(directory, position)
        lengths = fields[10:13]
        name, extra = _tails(directory, position + _ENTRY.size, lengths)
        position += _ENTRY.size + sum(lengths)
        members.append(_entry(fields, name, extra))
    if position != len(directory):
        raise ArchiveError("its list of members has another length than it says")
    return _located(file, sorted(members, key=lambda entry: entry[0]), start)


def _end_record(file: int, size: int) -> tuple[int, int, int]:
    """Number of members, and first and last byte of the directory."""
    if size < _END.size:
        raise ArchiveError("it is too short")
    end = size - _END.size
    mark, disk, first_disk, here, entries, length, start, comment = _END.unpack(
        _bytes_at(file, end, _END.size)
    )
    if mark != b"PK\x05\x06" or comment or disk not in (0, _FULL_16) or first_disk not in (0, _FULL_16):
        raise ArchiveError("the end of its list of members is missing")
    locator = _bytes_at(file, end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if locator[:4] == b"PK\x06\x07":
        end = _LOCATOR.unpack(locator)[2]
        if end + _END_64.size + _LOCATOR.size + _END.size != size:
            raise ArchiveError("the end of its list of members is damaged")
        record = _END_64.unpack(_bytes_at(file, end, _END_64.size))
        if record[0] != b"PK\x06\x06":
            raise ArchiveError("the end of its list of members is damaged")
        short_form = ((here, _FULL_16), (entries, _FULL_16), (length, _FULL_32), (start, _FULL_32))
        wide = record[6:10]
        if any(low not in (full, value) for (low, full), value in zip(short_form, wide, strict=True)):
            raise ArchiveError("the end of its list of members is damaged")
        here, entries, length, start = wide
    if here != entries or start + length != end or entries > _MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise ArchiveError("its list of members is damaged or too long")
    return entries, start, end


def _tails(directory: bytes, start: int, lengths: Sequence[int]) -> tuple[bytes, bytes]:
    """Name and extra fields behind the fixed part of a header."""
    middle = start + lengths[0]
    return directory[start:middle], directory[middle : middle + lengths[1]]


def _entry(fields: tuple, raw: bytes, extra: bytes) -> tuple[int, Member]:
    """Offset of the header in front of a member, and the member (its start not known yet)."""
    mark, flags, method, crc, packed, size = fields[0], *fields[3:5], *fields[7:10]
    offset = fields[16]
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError("a member's name is not UTF-8") from None
    if mark != b"PK\x01\x02" or fields[13] not in (0, _FULL_16):
        raise ArchiveError("its list of members is damaged")
    if flags & _ENCRYPTED or method:
        how = "encrypted" if flags & _ENCRYPTED else "compressed"
        raise ArchiveError(f"{short(name)} in it is {how}, and torch stores members as they are")
    wide = _wide_numbers(extra, [n for n in (size, packed, offset) if n == _FULL_32])
    size, packed, offset = (wide.pop(0) if n == _FULL_32 else n for n in (size, packed, offset))
    if size != packed:
        raise ArchiveError(f"{short(name)} in it has two sizes")
    return offset, Member(name, crc, 0, size)


def _wide_numbers(extra: bytes, missing: Sequence[int]) -> list[int]:
    """Numbers of 64 bits that stand in for those of 32 (extra field 1)."""
    position = 0
    while missing and position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1 and length >= 8 * len(missing) and position + length <= len(extra):
            return list(struct.unpack_from(f"<{len(missing)}Q", extra, position))
        position += length
    if missing:
        raise ArchiveError("a member's size is missing")
    return []


def _located(file: int, members: list[tuple[int, Member]], end: int) -> dict[str, Member]:
    """Members with the start of their data, after a comparison with the header in front of it."""
    located: dict[str, Member] = {}
    ends = [offset for offset, _ in members[1:]] + [end]
    for (offset, member), limit in zip(members, ends, strict=True):
        where = f"{short(member.name)} in it"
        raw = member.name.encode()
        if offset + _LOCAL.size + len(raw) > limit:
            raise ArchiveError(f"{where} shares bytes with another member")
        header = _bytes_at(file, offset, _LOCAL.size + len(raw))
        mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(
            header[: _LOCAL.size]
        )
        same = mark == b"PK\x03\x04" and method == 0 and name_length == len(raw)
        if not same or header[_LOCAL.size :] != raw:
            raise ArchiveError(f"{where} has another header than the list of members says")
        start = offset + len(header) + extra_length
        if start + member.size > limit:
            raise ArchiveError(f"{where} shares bytes with another member, or is cut short")
        if not flags & _LATER:
            wide = _wide_numbers(
                _bytes_at(file, offset + len(header), extra_length),
                [n for n in (size, packed) if n == _FULL_32],
            )
            size, packed = (wide.pop(0) if n == _FULL_32 else n for n in (size, packed))
            if (crc, packed, size) != (member.crc, member.size, member.size):
                raise ArchiveError(f"{where} has another size or checksum than the list of members says")
        if member.name in located:
            raise ArchiveError(f"{where} is there twice")
        located[member.name] = Member(member.name, member.crc, start, member.size)
    return located


def _bytes_at(file: int, start: int, count: int) -> bytes:
    content = bytearray(count)
    try:
        read_at(file, memoryview(content), start)
    except (OSError, ValueError):
        raise ArchiveError("it is cut short") from None
    return bytes(content)
