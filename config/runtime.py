"""What every long-running process does once it has started."""

from __future__ import annotations

import gc


def settle() -> None:
    """Takes all that was imported out of the garbage collector's sight.

    Hundreds of thousands of objects of the libraries would be walked again and again, each time as a pause of tens of
    milliseconds in the middle of some payment.
    """
    gc.collect()
    gc.freeze()
