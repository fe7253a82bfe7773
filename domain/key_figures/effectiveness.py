"""Overall equipment effectiveness: its three factors, and the time that each of them costs.

References
----------
ISO 22400-2:2014, Key performance indicators for manufacturing operations management:
availability = APT / PBT, effectiveness = PRI x PQ / APT, quality ratio = GQ / PQ, and the OEE
index as their product. Nakajima (1988), Introduction to TPM, for the losses as times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.key_figures.arguments import check_not_negative, check_order, ratio

ROUNDING: Final = 1e-9
"""Share of the planned time by which sums of its parts may miss it, as sums of floats do."""


@dataclass(frozen=True, slots=True)
class Effectiveness:
    """OEE, its factors, and its losses, s.

    A factor is None where what it would be a share of is zero. The losses and `valuable_s` add up
    to the planned time. `effectiveness_ratio` above 1, and then a negative `performance_loss_s`,
    says that the planned run time of an item was set too long; nothing is clamped.

    Parameters
    ----------
    planned_busy_s : time for which production was planned (PBT)
    production_s : time in which something was produced (APT)
    availability_ratio, effectiveness_ratio, quality_ratio, oee_ratio : see the module
    down_loss_s : planned time lost to recorded down time
    idle_loss_s : planned time lost without recorded down time: set-up, waiting, no order
    performance_loss_s : production time beyond what the produced items should have taken
    quality_loss_s : what the items that were not good should have taken
    valuable_s : what the good items should have taken
    """

    planned_busy_s: float
    production_s: float
    availability_ratio: float | None
    effectiveness_ratio: float | None
    quality_ratio: float | None
    oee_ratio: float | None
    down_loss_s: float
    idle_loss_s: float
    performance_loss_s: float
    quality_loss_s: float
    valuable_s: float


def overall_equipment_effectiveness(
    *,
    planned_busy_s: float,
    production_s: float,
    down_s: float,
    ideal_s: float,
    ideal_good_s: float,
) -> Effectiveness:
    """Return the OEE of one unit, or of several whose times were added up.

    Parameters
    ----------
    planned_busy_s : planned busy time (PBT), s
    production_s : actual production time within it (APT), s
    down_s : recorded down time within it in which nothing was produced, s
    ideal_s : planned run time of an item times items produced (PRI x PQ), over all kinds, s
    ideal_good_s : the same of the good items alone (PRI x GQ), s

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``, ``figure.values_contradict``

    Notes
    -----
    With several kinds of items the quality ratio is weighted by their planned run times, so that
    the product of the factors stays what it is for one kind: valuable time by planned time.
    """
    check_not_negative(
        planned_busy_s=planned_busy_s,
        production_s=production_s,
        down_s=down_s,
        ideal_s=ideal_s,
        ideal_good_s=ideal_good_s,
    )
    idle_s = planned_busy_s - production_s - down_s
    if abs(idle_s) <= ROUNDING * planned_busy_s:
        idle_s = 0.0
    if idle_s < 0:
        check_order(
            "production_s + down_s", production_s + down_s, "planned_busy_s", planned_busy_s
        )
    check_order("ideal_good_s", ideal_good_s, "ideal_s", ideal_s)
    return Effectiveness(
        planned_busy_s=planned_busy_s,
        production_s=production_s,
        availability_ratio=ratio(production_s, planned_busy_s),
        effectiveness_ratio=ratio(ideal_s, production_s),
        quality_ratio=ratio(ideal_good_s, ideal_s),
        oee_ratio=ratio(ideal_good_s, planned_busy_s),
        down_loss_s=down_s,
        idle_loss_s=idle_s,
        performance_loss_s=production_s - ideal_s,
        quality_loss_s=ideal_s - ideal_good_s,
        valuable_s=ideal_good_s,
    )
