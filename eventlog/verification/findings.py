"""What a verification finds, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FINDINGS_A_CODE_MAX: Final = 50
"""One flood of findings must not hide what else there is."""
ERASED_NAMED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was recorded: what, where, and how it should be."""

    code: str
    message: str
    position: int | None = None
    stream: str | None = None
    expected: Any = None
    actual: Any = None


@dataclass(frozen=True, slots=True)
class Erased:
    """An event whose payload was erased by law, and the position of the event that says so."""

    position: int
    stream: str
    erased_by: int


@dataclass
class Verification:
    """What a verification looked at and what it found.

    Parameters
    ----------
    size, root : of the tree as computed from the rows
    payloads : how many were compared with their hash, in rows and archive together
    payloads_archived : how many are in the archive; without it they are not compared
    payloads_erased : how many were erased, the first `ERASED_NAMED_MAX` of them in `erased`
    checkpoints : how many signed checkpoints were compared; `signatures` of them verified
    findings_left_out : how many more there are of codes found `FINDINGS_A_CODE_MAX` times
    """

    ledger: str
    size: int = 0
    root: bytes = b""
    payloads: int = 0
    payloads_archived: int = 0
    payloads_erased: int = 0
    tiles: int = 0
    checkpoints: int = 0
    signatures: int = 0
    erased: list[Erased] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    findings_left_out: int = 0
    _counts: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, code: str, message: str, **where: Any) -> None:
        """Note a finding."""
        count = self._counts[code] = self._counts.get(code, 0) + 1
        if count <= FINDINGS_A_CODE_MAX:
            self.findings.append(Finding(code, message, **where))
        else:
            self.findings_left_out += 1

    def add_erased(self, erased: Erased) -> None:
        """Note a payload that was erased as the log says."""
        self.payloads_erased += 1
        if len(self.erased) < ERASED_NAMED_MAX:
            self.erased.append(erased)
