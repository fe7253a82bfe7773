"""As of when an answer is wanted: what was known, and what was true.

Knowledge goes by the position or the time of recording, truth by when things happened; the two are
never mixed (bitemporal).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class AsOf:
    """Things as they were known, and as they were true; all None: now.

    Parameters
    ----------
    position, recorded_at : known at this position of the log, or at this moment; not both
    valid_at : true at this moment: links that had begun and not ended, states by then; None: all
        that is known, whenever it was true
    """

    position: int | None = None
    recorded_at: datetime | None = None
    valid_at: datetime | None = None


NOW: Final = AsOf()
