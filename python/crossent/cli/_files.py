"""Arrays in files, as things of which slices can be taken. None is read as a whole."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossent.cli._errors import Refused
from crossent.evaluation._extra import needs

Array = NDArray[Any]
FORMATS = (".npy", ".npz", ".safetensors", ".zarr", ".parquet")
# What a fingerprint reads of a file: so many blocks, evenly spread, with the first and the last.
BLOCKS, BLOCK_BYTES = 64, 1 << 14
# Names that an error lists.
LISTED = 20
# How much of a Parquet file is read at a time.
BUFFER_BYTES = 1 << 20
# What safetensors itself allows.
MOST_HEADER_BYTES = 100_000_000
SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


class Source:
    """An array in a file: its shape, its type, and slices along its first axis."""

    def __init__(
        self,
        path: Path,
        key: str,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[int, int], Any],
    ) -> None:
        self.path, self.key = path, key
        self.shape, self.dtype = tuple(int(n) for n in shape), dtype
        self._read = read

    @property
    def name(self) -> str:
        """As it was asked for."""
        return f"{self.path}:{self.key}" if self.key else str(self.path)

    def __getitem__(self, rows: slice) -> Any:
        start, stop, _ = rows.indices(self.shape[0])
        try:
            return self._read(start, stop)
        except Refused:
            raise
        except Exception as error:
            # What is damaged shows where it is read, in the words of who reads the format.
            raise Refused(f"{self.name} cannot be read: {error}") from error

    def viewed(self, dtype: np.dtype[Any]) -> Source:
        """The same bits as another type."""

        def read(start: int, stop: int) -> Array:
            return np.asarray(self._read(start, stop)).view(dtype)

        return Source(self.path, self.key, self.shape, dtype, read)

    def fingerprint(self) -> dict[str, Any]:
        """What tells it from others: its size, when it was changed, some of its content."""
        return {
            "key": self.key,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "digest": digest(self.path),
        }


def open_array(spec: str) -> Source:
    """The array that FILE or FILE:KEY names."""
    path, key = split(spec)
    if not path.exists():
        raise Refused(f"{path} does not exist")
    kind = path.suffix.lower()
    if path.is_dir() and kind != ".zarr":
        kind = (
            ".zarr" if any((path / n).exists() for n in ("zarr.json", ".zarray", ".zgroup")) else ""
        )
    readers = {
        ".npy": open_npy,
        ".npz": open_npz,
        ".safetensors": open_safetensors,
        ".zarr": open_zarr,
        ".parquet": open_parquet,
    }
    if kind not in readers:
        raise Refused(f"{path} is none of the formats {', '.join(FORMATS)}")
    try:
        return readers[kind](path, key)
    except (Refused, ImportError):
        raise
    except Exception as error:
        raise Refused(
            f"{path} cannot be read: {error}; is it a whole {kind} file? If not, write it again"
        ) from error


def split(spec: str) -> tuple[Path, str]:
    """The path and the key; a path may have colons in it."""
    path, colon, key = spec.rpartition(":")
    if not colon or Path(spec).exists() or not path.lower().endswith(FORMATS):
        is_there = colon and not Path(spec).exists() and Path(path).exists()
        return (Path(path), key) if is_there else (Path(spec), "")
    return Path(path), key


def chosen(path: Path, key: str, keys: list[str], what: str = "array") -> str:
    """The key that was asked for, or the only one."""
    if not key and len(keys) == 1:
        return keys[0]
    if not keys:
        raise Refused(f"{path} has no {what}s: save one in it, or give another file")
    if key not in keys:
        asked = f"no {what} {key}" if key else f"{len(keys)} {what}s"
        listed = ", ".join(keys[:LISTED]) + (", ..." if len(keys) > LISTED else "")
        raise Refused(f"{path} has {asked}: ask for {path}:KEY, KEY one of {listed}")
    return key


def mapped(
    path: Path,
    key: str,
    dtype: np.dtype[Any],
    begin: int,
    shape: tuple[int, ...],
    fortran: bool = False,
) -> Source:
    """The array whose numbers lie in the file from a byte on, through a memory map."""
    end, size = begin + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if end > size:
        raise Refused(
            f"{path} is cut off: it says that it has {end} bytes, and has {size}; write it again"
        )
    array: Array
    if math.prod(shape):
        array = np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")
    else:
        # Nothing cannot be mapped.
        array = np.zeros(shape, dtype)
    return Source(path, key, shape, dtype, lambda start, stop: array[start:stop])


def open_npy(path: Path, key: str) -> Source:
    if key:
        raise Refused(f"{path} holds one array, and no {key}: leave :{key} out")
    shape, fortran, dtype, begin = header_of(path, 0)
    return mapped(path, key, dtype, begin, shape, fortran)


def header_of(path: Path, offset: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """The shape, whether it is Fortran's order, the type, and where the numbers begin."""
    with path.open("rb") as file:
        file.seek(offset)
        return (*npy_header(file), file.tell())


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        found = np.lib.format.read_array_header_1_0(file)
    else:
        found = np.lib.format.read_array_header_2_0(file)
    if found[2].hasobject:
        raise Refused("Python objects are not read from files: save numbers, or fixed-size strings")
    return found


def open_npz(path: Path, key: str) -> Source:
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        key = chosen(path, key, keys)
        entry = archive.getinfo(key + ".npy")
    if entry.compress_type == zipfile.ZIP_STORED:
        # Names and extra fields stand between the entry's header and its content.
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            fixed = file.read(30)
        begin = entry.header_offset + 30
        begin += int.from_bytes(fixed[26:28], "little") + int.from_bytes(fixed[28:30], "little")
        shape, fortran, dtype, begin = header_of(path, begin)
        return mapped(path, key, dtype, begin, shape, fortran)
    stream = Unpacked(path, key)
    return Source(path, key, stream.shape, stream.dtype, stream.read)


class Unpacked:
    """A compressed array, unpacked as far as it is read; it can only be read forwards, and is begun
    anew where that is not enough."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._begin()

    def _begin(self) -> None:
        with zipfile.ZipFile(self._path) as archive:
            # It keeps the file open that it is read from.
            self._file = archive.open(self._key + ".npy")
        self.shape, fortran, self.dtype = npy_header(self._file)
        if fortran and len(self.shape) > 1:
            raise Refused(f"{self._path}:{self._key} is in Fortran's order: save it in C's")
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._next = 0

    def read(self, start: int, stop: int) -> Array:
        if start < self._next:
            self._begin()
        self._skip((start - self._next) * self._row_bytes)
        wanted = (stop - start) * self._row_bytes
        data = self._file.read(wanted)
        if len(data) != wanted:
            raise Refused(f"{self._path}:{self._key} is cut off: write it again")
        self._next = stop
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _skip(self, count: int) -> None:
        while count > 0:
            count -= len(self._file.read(min(count, 1 << 24))) or count


def open_safetensors(path: Path, key: str) -> Source:
    """The format is a length, as much JSON that says where each array lies, and the arrays: so they
    are mapped, which its own package does not do for slices."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER_BYTES, path.stat().st_size):
            raise Refused(f"{path} is no .safetensors file, or is cut off: write it again")
        header = json.loads(file.read(length))
    key = chosen(path, key, [name for name in header if name != "__metadata__"])
    held = header[key]
    if held["dtype"] == "BF16":
        dtype = np.dtype(needs("ml_dtypes", "eval").bfloat16)
    elif held["dtype"] in SAFETENSORS_TYPES:
        dtype = np.dtype(SAFETENSORS_TYPES[held["dtype"]])
    else:
        raise Refused(f"{path}:{key} is of the type {held['dtype']}: convert it to F32, say")
    shape, (begin, end) = tuple(held["shape"]), held["data_offsets"]
    if not 0 <= begin <= end or end - begin != math.prod(shape) * dtype.itemsize:
        raise Refused(f"{path}:{key} is not as long as its shape says: write the file again")
    return mapped(path, key, dtype, 8 + length + begin, shape)


def open_zarr(path: Path, key: str) -> Source:
    zarr = needs("zarr", "eval")
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        if key:
            raise Refused(f"{path} holds one array, and no {key}: leave :{key} out")
        array = node
    else:
        if not (key and key in node and isinstance(node[key], zarr.Array)):
            key = chosen(path, key, sorted(arrays_within(node)))
        array = node[key]
    return Source(path, key, array.shape, array.dtype, lambda start, stop: array[start:stop])


def arrays_within(group: Any, above: str = "") -> Iterator[str]:
    """The paths of the arrays of a Zarr group and of the groups in it."""
    for name, _ in group.arrays():
        yield above + name
    for name, inner in group.groups():
        yield from arrays_within(inner, f"{above}{name}/")


def open_parquet(path: Path, key: str) -> Source:
    parquet = needs("pyarrow.parquet", "eval")
    # Neither mapped nor read ahead: pages of a map would stay, and all row groups be read at once.
    file = parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    key = chosen(path, key, file.schema_arrow.names, "column")
    column = Column(path, key, file)
    first = column.read(0, min(1, column.length))
    return Source(path, key, (column.length, *first.shape[1:]), first.dtype, column.read)


class Column:
    """A Parquet column of numbers, or of lists of equal length, which are rows."""

    def __init__(self, path: Path, key: str, file: Any) -> None:
        self._name, self._key, self._file = f"{path}:{key}", key, file
        self.length = file.metadata.num_rows
        self._next, self._step, self._rest = -1, 0, np.zeros(0)
        self._batches: Iterator[Array] = iter(())
        # How long lists are: as the first.
        self._width: int | None = None

    def _from(self, row: int) -> Iterator[Array]:
        """Rows from this one on; row groups before it are not read."""
        metadata, first, group = self._file.metadata, 0, 0
        while group < metadata.num_row_groups and first + metadata.row_group(group).num_rows <= row:
            first += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        for batch in self._file.iter_batches(self._step, groups, columns=[self._key]):
            array = self._numbers(batch.column(0))
            yield array[max(0, row - first) :]
            first += len(array)

    def _numbers(self, column: Any) -> Array:
        pa = needs("pyarrow", "eval")
        rows = len(column)
        if column.null_count:
            raise Refused(f"{self._name} has nulls: fill them, targets with the ignored index")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=np.str_)
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)
                or pa.types.is_fixed_size_list(kind)):  # fmt: skip
            return np.asarray(column.to_numpy(zero_copy_only=False))
        numbers = column.flatten()
        if numbers.null_count:
            raise Refused(f"{self._name} has nulls in its lists: fill them")
        if self._width is None:
            self._width = len(numbers) // max(1, rows)
        if not pa.types.is_fixed_size_list(kind):
            lengths = column.value_lengths().to_numpy()
            if (lengths != self._width).any():
                raise Refused(f"{self._name} has lists of different lengths: rows need as many")
        return np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(rows, self._width)

    def read(self, start: int, stop: int) -> Array:
        # As many rows are decoded at a time as are wanted at a time.
        if start != self._next or stop - start > self._step:
            self._step = stop - start
            self._batches, self._rest = self._from(start), np.zeros(0)
        parts, missing = [], stop - start
        while missing > 0:
            if not len(self._rest):
                self._rest = next(self._batches)
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        self._next = stop
        if not parts:
            return np.zeros(0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def digest(path: Path) -> str:
    """Of a file: of its size, when it was changed, and blocks of its content. Of a directory: of
    all its files."""
    hashed = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    blocks = max(2, BLOCKS // len(files))
    for file in files:
        known = file.stat()
        name = file.relative_to(path).as_posix()
        hashed.update(f"{name} {known.st_size} {known.st_mtime_ns}\n".encode())
        with file.open("rb") as content:
            for i in range(blocks):
                content.seek(i * max(0, known.st_size - BLOCK_BYTES) // (blocks - 1))
                hashed.update(content.read(BLOCK_BYTES))
    return hashed.hexdigest()
