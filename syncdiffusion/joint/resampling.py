"""RePaint's resampling (Lugmayr et al., CVPR 2022): going back up the noise levels, to bring what is new into harmony.

On reaching level 0, j, 2j, ... (the least noise is 0), but not the last j levels below the top, latents climb j levels,
x <- sqrt(a) · x + sqrt(1 - a) · z with a = alpha_bar of the level above over that of the level below, and go down
again; so each such stretch is gone down `jump_n_sample` times. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def levels(steps: int, jump_length: int, jump_n_sample: int) -> list[int]:
    """The noise levels that are visited: from steps - 1 down to 0 and back up, and at last -1, which is clean.

    >>> levels(4, 2, 2)
    [3, 2, 1, 0, 1, 2, 1, 0, -1]
    """
    jumps = dict.fromkeys(range(0, steps - jump_length, jump_length), jump_n_sample - 1)
    visited = [steps - 1]
    while visited[-1] >= 0:
        level = visited[-1] - 1
        visited.append(level)
        if jumps.get(level, 0):
            jumps[level] -= 1
            visited += range(level + 1, level + jump_length + 1)
    return visited


def passes(visited: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The levels from which a step down is taken, in order, each with those that are climbed to after it.

    >>> passes([2, 1, 0, 1, 0, -1])
    [(2, ()), (1, (1,)), (1, ()), (0, ())]
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    for now, then in pairwise(visited):
        if then < now:
            found.append((now, ()))
        else:
            found[-1] = (found[-1][0], (*found[-1][1], then))
    return found
