"""Where image files lie: a folder, the inside of a zip or tar file, or the URL of an fsspec file system."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from maskrcnn_benchmark.utils.errors import DataError

_ARCHIVES = (".zip", ".tar")
_MAX_BYTES = 1 << 30
_PROBED = 64
"""Names that are looked for one by one where a server gives no listing."""


class ImageSource:
    """A folder of image files. Names are relative, with slashes.

    `open_image_source` gives the source of a path; those of other kinds are its subclasses. A source can be
    sent to and used in other processes, whether they were forked or spawned.
    """

    is_folder = True

    def __init__(self, location: str) -> None:
        self.location = location

    def path(self, name: str) -> str:
        """Path or URL of an image, for messages."""
        return os.path.join(self.location, name)

    def find(self, names: Iterable[str]) -> str | None:
        """The first of `names` that is a file; None when there is none."""
        return next((name for name in names if self.is_file(name)), None)

    def open(self, name: str) -> str | BinaryIO:
        """What Pillow opens: a path, or a file in memory. Raises OSError."""
        return self.path(name)

    def names(self) -> list[str]:
        """Names of the files, sorted: of a folder those in it, of an archive those below it too."""
        if not self.is_there():
            return []
        with os.scandir(self.location) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())

    def is_there(self) -> bool:
        """Whether the folder or archive exists."""
        return os.path.isdir(self.location)

    def missing(self, candidates: Sequence[Sequence[str]]) -> list[int]:
        """Positions in `candidates` of those of which no name is a file."""
        return [i for i, names in enumerate(candidates) if self.find(names) is None]

    def is_file(self, name: str) -> bool:
        """Whether the image `name` is there."""
        return os.path.isfile(self.path(name))


class _Archive(ImageSource):
    """Base of zip and tar files: an index of members by name, read at positions of one shared handle.

    `os.pread` moves no file position, so that forked processes can share the handle; spawned ones open and
    index the archive anew.
    """

    is_folder = False
    _kind = ""

    def __init__(self, location: str, archive: str) -> None:
        super().__init__(location)
        self._archive = archive
        self._handle = os.open(archive, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            index = self._read_index()
        except Exception as error:  # readers of archives raise many kinds
            raise DataError(
                f"{archive} cannot be read as {self._kind}: {error}; fetch the file again"
            ) from None
        folder = os.path.relpath(location, archive).replace(os.sep, "/")
        self._names, self._index = _below(index, "" if folder == "." else folder)
        if index and not self._index:
            raise DataError(f"{archive} has no folder {folder}; its first file is {next(iter(index))}")

    def __reduce__(self) -> Any:
        return type(self), (self.location, self._archive)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def names(self) -> list[str]:
        """Names of all members below the location, sorted."""
        return sorted(self._names)

    def is_there(self) -> bool:
        """The archive has been opened."""
        return True

    def is_file(self, name: str) -> bool:
        """Whether `name` is a member."""
        return posixpath.normpath(name) in self._index

    def _member(self, name: str) -> Any:
        try:
            return self._index[posixpath.normpath(name)]
        except KeyError:
            raise FileNotFoundError(2, f"no such member of {self._archive}", name) from None

    def _read_index(self) -> dict[str, Any]:
        raise NotImplementedError


class _ZipFile(_Archive):
    _kind = "zip file"

    def _read_index(self) -> dict[str, Any]:
        self._zip = zipfile.ZipFile(io.BufferedReader(_SharedFile(self._handle), 1 << 16))
        return {posixpath.normpath(m.filename): m for m in self._zip.infolist() if not m.is_dir()}

    def open(self, name: str) -> BinaryIO:
        """Read a member into memory; its checksum is verified."""
        try:
            with self._zip.open(self._member(name)) as file:
                return io.BytesIO(_bounded(file.read(_MAX_BYTES + 1)))
        except OSError:
            raise
        except Exception as error:  # damaged and encrypted members, unknown compression
            raise OSError(f"{error} (member of {self._archive})") from None


class _TarFile(_Archive):
    _kind = "tar file"

    def _read_index(self) -> dict[str, Any]:
        index: dict[str, tuple[int, int]] = {}
        end = 0
        with tarfile.open(
            fileobj=io.BufferedReader(_SharedFile(self._handle), 1 << 16), mode="r:"
        ) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # the index is enough
                if member.offset_data <= end:
                    raise ValueError("a header leads back")
                end = member.offset_data
                if member.isreg() and not member.issparse():
                    index[posixpath.normpath(member.name)] = (member.offset_data, member.size)
                elif member.islnk() and posixpath.normpath(member.linkname) in index:
                    index[posixpath.normpath(member.name)] = index[posixpath.normpath(member.linkname)]
        return index

    def open(self, name: str) -> BinaryIO:
        """Read a member into memory."""
        start, size = self._member(name)
        data = _read_at(self._handle, start, _bounded_size(size))
        if len(data) < size:
            raise OSError(f"{self._archive} is truncated")
        return io.BytesIO(data)


class _UrlFolder(ImageSource):
    """A folder of any file system that fsspec knows; every process opens its own connection."""

    is_folder = False

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._process = -1
        self._connect()

    def __reduce__(self) -> Any:
        return type(self), (self.location,)

    def path(self, name: str) -> str:
        """URL of an image, for messages."""
        url, *outer = self.location.split("::")
        return "::".join([f"{url.rstrip('/')}/{name}", *outer])

    def open(self, name: str) -> BinaryIO:
        """Fetch an image into memory."""
        system = self._connect()
        try:
            return io.BytesIO(_bounded(system.cat_file(self._inside(name), start=0, end=_MAX_BYTES + 1)))
        except OSError:
            raise
        except Exception as error:  # whatever a client library raises
            raise OSError(f"{type(error).__name__}: {error}") from None

    def _inside(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _connect(self) -> Any:
        if self._process != os.getpid():
            import fsspec

            try:
                self._system, self._root = fsspec.core.url_to_fs(self.location)
            except Exception as error:  # unknown protocol, missing package, no connection
                reason = " ".join(str(error).split())
                raise DataError(
                    f"image folder {self.location} cannot be opened: {reason}; protocols are those of fsspec"
                ) from None
            self._process = os.getpid()
        return self._system

    def names(self) -> list[str]:
        """Names of the files in the folder, sorted; DataError when the server lists none."""
        listed = self._listing("")
        if listed is None:
            raise DataError(f"image folder {self.location} cannot be listed: name its images one by one")
        return sorted(listed)

    def is_there(self) -> bool:
        """The file system has been opened; what it holds shows when it is read."""
        return True

    def is_file(self, name: str) -> bool:
        """Ask the server for `name`."""
        try:
            return bool(self._connect().isfile(self._inside(name)))
        except Exception as error:  # whatever a client library raises
            raise DataError(
                f"{self.path(name)} cannot be looked for: {type(error).__name__}: {error}"
            ) from None

    def find(self, names: Iterable[str]) -> str | None:
        """The first of `names` that exists; a single name is not asked for, since reading it tells."""
        names = list(names)
        return names[0] if len(names) == 1 else super().find(names)

    def _listing(self, folder: str) -> set[str] | None:
        """Names in `folder`; None when the server lists nothing."""
        try:
            listed = self._connect().ls(self._inside(folder).rstrip("/"), detail=False)
        except FileNotFoundError:
            return set()
        except Exception:  # servers without listings, refused requests
            return None
        return {posixpath.basename(str(entry).rstrip("/")) for entry in listed}

    def missing(self, candidates: Sequence[Sequence[str]]) -> list[int]:
        """Positions of those that do not exist; of what cannot be listed, some are looked for one by one."""
        folders = {
            folder: self._listing(folder) for folder in {_folder(n) for names in candidates for n in names}
        }
        missing: list[int] = []
        unknown: list[int] = []
        for i, names in enumerate(candidates):
            listings = [(name, folders[_folder(name)]) for name in names]
            if any(listing is not None and posixpath.basename(name) in listing for name, listing in listings):
                continue
            (unknown if any(listing is None for _, listing in listings) else missing).append(i)
        probed = unknown[:: max(1, len(unknown) // _PROBED)]
        return sorted([*missing, *(i for i in probed if not any(map(self.is_file, candidates[i])))])


def _folder(name: str) -> str:
    return posixpath.dirname(name)


class _SharedFile(io.RawIOBase):
    """A handle read at a position of this object's own, which leaves the handle's position alone."""

    def __init__(self, handle: int) -> None:
        self._shared, self._position = handle, 0
        self._size = os.fstat(handle).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} of a file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._shared, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def is_image_source(location: str) -> bool:
    """Whether a location is an archive, a folder in one, or a URL (not whether it is there)."""
    return "://" in location or any(f"{suffix}/" in f"{location}/".lower() for suffix in _ARCHIVES)


def open_image_source(location: str) -> ImageSource:
    """Open the place of images.

    location: a folder, a zip or uncompressed tar file or a folder inside it (images.zip/train2017), or a URL
        that fsspec knows (s3://bucket/images). A folder that does not exist is a source without images.
    Raises DataError for a file that is no such archive and a URL that cannot be opened.
    """
    location = os.fspath(location)
    if "://" in location:
        scheme, _, rest = location.partition("://")
        return ImageSource(rest) if scheme in ("file", "local") and "::" not in rest else _UrlFolder(location)
    archive = location.rstrip("/")
    while archive and not os.path.lexists(archive):
        archive = os.path.dirname(archive)
    if not os.path.isfile(archive):
        return ImageSource(location)
    try:
        if zipfile.is_zipfile(archive):
            return _ZipFile(location, archive)
        if archive.endswith(".tar") or _is_tar(archive):
            return _TarFile(location, archive)
    except OSError as error:
        raise DataError(f"{archive} cannot be opened: {error.strerror or error}") from None
    raise DataError(
        f"{archive} is no folder of images, zip file or uncompressed tar file; unpack it and name its folder"
    )


def _is_tar(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _below(index: dict[str, Any], folder: str) -> tuple[list[str], dict[str, Any]]:
    """Names below `folder`, and the members by them and by their names in the only folder there, if any."""
    prefix = f"{folder}/" if folder else ""
    members = {name[len(prefix) :]: member for name, member in index.items() if name.startswith(prefix)}
    names = list(members)
    tops = {name.partition("/")[0] for name in members if "/" in name}
    if len(tops) == 1:
        inner = f"{tops.pop()}/"
        members |= {
            name[len(inner) :]: member
            for name, member in list(members.items())
            if name.startswith(inner) and name[len(inner) :] not in members
        }
    return names, members


def _bounded(data: bytes) -> bytes:
    _bounded_size(len(data))
    return data


def _bounded_size(size: int) -> int:
    if size > _MAX_BYTES:
        raise OSError(f"a file of more than {_MAX_BYTES >> 30} GiB")
    return size


def _read_at(handle: int, start: int, size: int) -> bytes:
    """Read up to `size` bytes from a position; `os.pread` may return fewer at a time."""
    parts = []
    while size > 0 and (part := os.pread(handle, size, start)):
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return b"".join(parts)
