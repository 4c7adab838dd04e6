"""How large a picture may be, by the memory that is free."""

import contextlib
import os
from pathlib import Path

BYTES_PER_PIXEL = 24
"""Taken while a picture is decoded, upscaled and encoded in memory: its samples, copies of them, and the result."""

LEAST_PIXELS, MOST_PIXELS = 2**24, 2**30


def max_pixels_by_memory() -> int:
    """Return how many pixels a picture may have so that it fits into free memory, 2**24..2**30."""
    free = free_memory()
    return MOST_PIXELS if free is None else min(max(free // BYTES_PER_PIXEL, LEAST_PIXELS), MOST_PIXELS)


def too_large(width: int, height: int, most: int) -> str:
    """Return what is said about a picture of more than `most` pixels, or "" where it has no more."""
    if width * height <= most:
        return ""
    return (
        f"{width} x {height} pixels are more than the limit of {most}; if you trust the file and have the memory, raise it:"
        f" --max-pixels {width * height}"
    )


def free_memory() -> int | None:
    """Return the bytes that this process may still take, by the machine and its control group; None where it cannot be told."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    if not found:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(min(found), 0) if found else None
