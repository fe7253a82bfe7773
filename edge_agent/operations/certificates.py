"""Certificates that the agent uses: until when each is good, and a word before it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

WARNED_BEFORE: Final = (timedelta(days=30), timedelta(days=7), timedelta(days=1), timedelta(0))
CERTIFICATES_MAX: Final = 200

_PEM_MARK: Final = b"-----BEGIN CERTIFICATE-----"
_log = logging.getLogger("heddle.edge.certificates")


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """One file, and when the first of its certificates ends.

    Parameters
    ----------
    days_left : below 0 once it has ended; None where the file cannot be read
    """

    file: str
    subject: str
    ends_at: str
    days_left: float | None
    fault: str = ""


def certificate_statuses(files: Sequence[Path], now: datetime) -> list[CertificateStatus]:
    """Return how the certificates in `files` stand at `now`."""
    return [_status(file, now) for file in list(dict.fromkeys(files))[:CERTIFICATES_MAX]]


def _status(file: Path, now: datetime) -> CertificateStatus:
    from cryptography import x509

    try:
        raw = file.read_bytes()
        found = (
            x509.load_pem_x509_certificates(raw)
            if _PEM_MARK in raw
            else [x509.load_der_x509_certificate(raw)]
        )
    except (OSError, ValueError) as error:
        return CertificateStatus(str(file), "", "", None, str(error)[:200])
    first = min(found, key=lambda certificate: certificate.not_valid_after_utc)
    ends_at = first.not_valid_after_utc
    days_left = (ends_at - now) / timedelta(days=1)
    return CertificateStatus(
        str(file), first.subject.rfc4514_string(), ends_at.isoformat(), round(days_left, 2)
    )


class ExpiryWatch:
    """Warns of each certificate once at each of `WARNED_BEFORE`."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}

    def look(self, files: Sequence[Path], now: datetime | None = None) -> list[CertificateStatus]:
        """Return how the certificates stand, after warning of those that end soon."""
        statuses = certificate_statuses(files, now or datetime.now(UTC))
        for status in statuses:
            self._warn(status)
        return statuses

    def _warn(self, status: CertificateStatus) -> None:
        key = (status.file, status.ends_at or status.fault)
        if status.days_left is None:
            if key not in self._told:
                self._told[key] = 0
                _log.error("the certificate %s cannot be read: %s", status.file, status.fault)
            return
        left = timedelta(days=status.days_left)
        passed = sum(left <= before for before in WARNED_BEFORE)
        if passed > self._told.get(key, 0):
            self._told[key] = passed
            if left <= timedelta(0):
                _log.error("the certificate %s (%s) has ended", status.file, status.subject)
            else:
                _log.warning(
                    "the certificate %s (%s) ends in %.1f days",
                    status.file,
                    status.subject,
                    status.days_left,
                )
