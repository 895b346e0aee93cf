"""In which order completions are shown, so that their places are balanced over annotators; pure.

Annotators of one comparison come in blocks of K, as many as it has completions. Each block has a
shuffle of its own, and within it each annotator sees that shuffle rotated by one place more than
the one before: a Latin square, in which every completion stands once in every place. So after any
number of annotators no completion stood in a place more than once oftener than another did, and
nobody can tell from what they see which completion others see first.
"""

import hashlib
import random
from collections.abc import Sequence


def order_of(ids: Sequence[int], *, seed: str, number: int) -> list[int]:
    """What the annotator with this number (from 0) sees.

    seed: the comparison's own, unknown to annotators.
    """
    block, turn = divmod(number, len(ids))
    order = list(ids)
    digest = hashlib.sha256(f"order {seed} {block}".encode()).digest()
    random.Random(digest).shuffle(order)
    return order[turn:] + order[:turn]
