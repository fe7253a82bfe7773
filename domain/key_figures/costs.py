"""What energy, work and failures cost, and what it saved to act before a failure.

No price, rate or probability is assumed here: each is an argument, and comes back with the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.key_figures.arguments import check_not_negative, check_ratio, ratio


@dataclass(frozen=True, slots=True)
class EnergyPrice:
    """What energy costs, in `currency` (ISO 4217) per J; a kWh is 3.6e6 J."""

    per_j: float
    currency: str

    def cost(self, energy_j: float) -> float:
        """Return what `energy_j` costs.

        Raises
        ------
        InvalidInput
            ``figure.value_invalid``
        """
        check_not_negative(per_j=self.per_j, energy_j=energy_j)
        return self.per_j * energy_j


def per_unit(amount: float, units: float) -> float | None:
    """Return `amount` by unit; None where there are none."""
    check_not_negative(amount=amount, units=units)
    return ratio(amount, units)


@dataclass(frozen=True, slots=True)
class PreventionAssumptions:
    """What would have happened without the work: nobody has seen it, so somebody has to say.

    Parameters
    ----------
    failure_probability : that a confirmed finding would have become a failure
    failure_down_s : how long the asset would have stood still, s
    failure_repair_cost : what the repair would have cost, with secondary damage
    down_cost_per_s : what a second of standstill costs
    currency : of all these amounts; ISO 4217
    """

    failure_probability: float
    failure_down_s: float
    failure_repair_cost: float
    down_cost_per_s: float
    currency: str


@dataclass(frozen=True, slots=True)
class PreventionSavings:
    """What acting early saved: what was avoided less what it took, in one currency."""

    prevented: int
    avoided_cost: float
    avoided_down_s: float
    spent_on_work: float
    spent_on_down_time: float
    saving: float
    assumptions: PreventionAssumptions


def prevention_savings(
    prevented: int, *, work_cost: float, down_s: float, assumptions: PreventionAssumptions
) -> PreventionSavings:
    """Return what `prevented` failures would have cost, less what preventing them did.

    Parameters
    ----------
    work_cost : what the preventive work cost, as recorded, in the assumptions' currency
    down_s : standstill that it took, as recorded, s

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``, ``figure.ratio_out_of_range``
    """
    check_ratio(failure_probability=assumptions.failure_probability)
    check_not_negative(
        prevented=prevented,
        work_cost=work_cost,
        down_s=down_s,
        failure_down_s=assumptions.failure_down_s,
        failure_repair_cost=assumptions.failure_repair_cost,
        down_cost_per_s=assumptions.down_cost_per_s,
    )
    expected = prevented * assumptions.failure_probability
    avoided_down_s = expected * assumptions.failure_down_s
    avoided = (
        expected * assumptions.failure_repair_cost + avoided_down_s * assumptions.down_cost_per_s
    )
    standstill = down_s * assumptions.down_cost_per_s
    return PreventionSavings(
        prevented=prevented,
        avoided_cost=avoided,
        avoided_down_s=avoided_down_s,
        spent_on_work=work_cost,
        spent_on_down_time=standstill,
        saving=avoided - work_cost - standstill,
        assumptions=assumptions,
    )
