"""Rounding of sizes."""


def ceil_div(size: int, divisor: int) -> int:
    """`size` / `divisor`, rounded up."""
    return -(-size // divisor)


def round_up(size: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is >= `size`."""
    return ceil_div(size, multiple) * multiple
