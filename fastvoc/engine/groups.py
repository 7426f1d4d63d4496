"""Which mels of different lengths run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def groups(frames: Sequence[int], most: int) -> Iterator[list[int]]:
    """Put items of like length together, so that each group has at most so many frames once it is padded.

    Parameters
    ----------
    frames : sequence of int
        Of each item.
    most : int
        Of a group; an item that is longer is alone.

    Yields
    ------
    list of int
        The numbers of some items, longest first.

    Examples
    --------
    >>> list(groups([30, 90, 40, 50, 200], most=100))
    [[4], [1], [3, 2], [0]]
    """
    waiting = sorted(range(len(frames)), key=lambda item: frames[item], reverse=True)
    while waiting:
        count = max(1, most // frames[waiting[0]])
        yield waiting[:count]
        waiting = waiting[count:]
