"""Reads protobuf's wire format, as far as ONNX files need it; https://protobuf.dev/programming-guides/encoding/."""

import mmap
from collections.abc import Iterator

Buffer = mmap.mmap | bytes


def fields(data: Buffer, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) of each field of the message in data[start:stop].

    Raises:
        ValueError, IndexError: it is damaged.
    """
    while start < stop:
        tag, start = varint(data, start)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, end = varint(data, start)
        elif wire_type == 2:
            size, start = varint(data, start)
            end = start + size
        elif wire_type in (1, 5):
            end = start + (8 if wire_type == 1 else 4)
        else:
            raise ValueError(f"wire type {wire_type}")
        if end > stop:
            raise ValueError(f"field {number} ends at {end}, after {stop}")
        yield number, start, end
        start = end


def varint(data: Buffer, position: int) -> tuple[int, int]:
    """Return (value, position after it); the lowest 7 bits come first, the 8th says that more follow."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")
