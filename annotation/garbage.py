"""Python's garbage collector in the web process.

A page that reads ten thousand votes makes lists and dicts by the ten thousand, none of which is a
cycle; every 700 of them the collector looks, and now and then walks all of Django besides. That
was half of the time of the pages of analysis and of quality.
"""

import gc

OBJECTS_BETWEEN_LOOKS = 50_000
"""Some megabytes of what might be garbage."""


def spare_what_stays() -> None:
    """Call it once everything is imported: what is there then is never looked at again, and the
    rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)
