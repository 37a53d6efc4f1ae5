"""What a column of images or points is made of, and how its values become arrays.

Shapes   n rows, X the shape of a sample: (C, H, W) or (D,).
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from saddlepoint.data.dataset import require
from saddlepoint.data.images import MODES, decode, side_by_side
from saddlepoint.errors import UserError

Stored = NDArray[Any]  # (n, *X): levels 0..255 as uint8, or numbers as they are, float32
DType = type[np.uint8] | type[np.float32]
DTYPES: Mapping[pa.DataType, DType] = {pa.uint8(): np.uint8, pa.float32(): np.float32}
Where = Callable[[int], str]  # names the i-th of the values for a person


class Codec(Protocol):
    @property
    def shape(self) -> tuple[int, ...]:
        """X"""

    @property
    def dtype(self) -> DType: ...

    def decode(self, values: pa.Array, where: Where) -> Stored:
        """Raises UserError for a row that is missing, cannot be read, or differs in shape."""


@dataclass(frozen=True)
class Arrays:
    """Lists of numbers in row-major order."""

    shape: tuple[int, ...]
    dtype: DType

    def decode(self, values: pa.Array, where: Where) -> Stored:
        _refuse_missing(values, where)
        wanted = int(np.prod(self.shape))
        if not pa.types.is_fixed_size_list(values.type):
            lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
            if len(odd := np.flatnonzero(lengths != wanted)):
                raise UserError(f"data.image: {where(odd[0])} holds {lengths[odd[0]]} numbers; others hold {wanted}")
        numbers = values.flatten()
        if numbers.null_count:
            raise UserError(f"data.image: {where(_first_missing(numbers) // wanted)} lacks a number")
        stored: Stored = numbers.to_numpy().reshape(len(values), *self.shape)
        if self.dtype is np.float32:
            self._check(stored, where)
        return stored

    def _check(self, stored: Stored, where: Where) -> None:
        """Numbers are used as they are: finite, and pixels within [-1, 1]."""
        image = len(self.shape) == 3
        peaks = np.abs(stored).reshape(len(stored), -1).max(axis=1)
        right = peaks <= (1 if image else np.finfo(np.float32).max)  # false for NaN
        if not right.all():
            row = int(np.argmin(right))
            wanted = "within [-1, 1]" if image else "finite"
            raise UserError(f"data.image: {where(row)} holds numbers that are not {wanted}")


@dataclass(frozen=True)
class Encoded:
    """PNG, JPEG and what else Pillow reads; as binary values, or in the field `bytes` of a struct."""

    shape: tuple[int, ...]
    size: int | None
    channels: int | None
    dtype: DType = np.uint8

    def decode(self, values: pa.Array, where: Where) -> Stored:
        values = _bytes(values, where)
        stored = np.empty((len(values), *self.shape), dtype=np.uint8)

        def fill(row: int) -> None:
            image = _image(values[row], where(row), self.size, self.channels)
            if image.shape != self.shape:
                raise UserError(
                    f"data.image: {where(row)} is an image of {_in_words(image.shape)}, others are of "
                    f"{_in_words(self.shape)}; give size and channels, and all are made equal"
                )
            stored[row] = image

        side_by_side(len(stored), fill)
        return stored


def codec(
    column: str,
    type_: pa.DataType,
    facts: Mapping[str, str],
    size: int | None,
    channels: int | None,
    first: pa.Array,
    name: str,
) -> Codec:
    """What reads a column of this type, whose first value is given with its name; `facts` are the metadata.

    Raises:
        UserError: no type of an image; no shape in the metadata, or one that does not fit; size or channels for
            what is not encoded.
    """
    require(size is None or size >= 1, "size", size, "at least 1")
    require(channels is None or channels in MODES, "channels", channels, "1 or 3")
    if _is_binary(type_) or (pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0):
        image = _image(_bytes(first, lambda _: name)[0], name, size, channels)
        return Encoded(image.shape, size, channels)
    listed = any(is_list(type_) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    dtype = DTYPES.get(type_.value_type) if listed else None
    if dtype is None:
        right = "encoded images (binary), or lists of uint8 or float32"
        raise UserError(f"data.image: the column {column!r} is of type {type_}; it must hold {right}")
    for option, value in (("size", size), ("channels", channels)):
        if value is not None:
            raise UserError(f"data.{option}: {value}; it is for encoded images, and {column!r} holds arrays")
    shape = _shape(column, type_, facts)
    if dtype is np.uint8 and len(shape) == 1:
        raise UserError(f"data.image: the column {column!r} holds uint8, so images; their shape must be C,H,W")
    return Arrays(shape, dtype)


def _shape(column: str, type_: pa.DataType, facts: Mapping[str, str]) -> tuple[int, ...]:
    written = facts.get("shape")
    if written is None:
        if pa.types.is_fixed_size_list(type_):
            return (type_.list_size,)
        raise UserError(f"data.image: the file of the column {column!r} lacks the metadata shape, such as '3,32,32'")
    parts = written.strip("()[] ").rstrip(",").split(",")
    shape = tuple(int(part) for part in parts if part.strip().isdigit())
    if len(shape) != len(parts) or len(shape) not in (1, 3) or min(shape) < 1:
        raise UserError(f"data.image: the metadata shape {written!r} must be C,H,W for images, or D for points")
    if pa.types.is_fixed_size_list(type_) and np.prod(shape) != type_.list_size:
        raise UserError(f"data.image: the metadata shape {written!r} does not fit lists of {type_.list_size}")
    return shape


def _image(value: pa.Scalar, name: str, size: int | None, channels: int | None) -> NDArray[np.uint8]:
    return decode(io.BytesIO(value.as_py()), f"in {name}", size, channels)


def _bytes(values: pa.Array, where: Where) -> pa.Array:
    _refuse_missing(values, where)
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
        _refuse_missing(values, where)
    return values


def _refuse_missing(values: pa.Array, where: Where) -> None:
    if values.null_count:
        raise UserError(f"data.image: {where(_first_missing(values))} has no image")


def _first_missing(values: pa.Array) -> int:
    return int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])


def _is_binary(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _in_words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
