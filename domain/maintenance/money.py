"""Amounts of money: a finite number that is not negative, and the currency that it is in.

References
----------
ISO 4217:2015, list one (current currencies) of 2024, without funds, metals and test codes.
"""

from __future__ import annotations

import math
from typing import Final

from domain.errors import InvalidInput

_CODES: Final = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP "
    "BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP "
    "GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES "
    "KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU "
    "MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON "
    "RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND "
    "TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW "
    "ZWG"
)
CURRENCIES: Final = frozenset(_CODES.split())


def check_money(name: str, amount: float | None, currency: str | None) -> None:
    """Refuse an `amount` without a currency, a currency without an amount, and what is neither.

    Raises
    ------
    InvalidInput
        ``currency.missing``, ``currency.unwanted``, ``currency.unknown``,
        ``money.out_of_range``
    """
    if amount is None:
        if currency is not None:
            raise InvalidInput(
                "currency.unwanted", f"{name} has a currency and no amount", value=currency[:20]
            )
        return
    if currency is None:
        raise InvalidInput(
            "currency.missing",
            f"{name} of {amount} has no currency",
            hint="its code after ISO 4217, such as EUR",
            value=amount,
        )
    if currency not in CURRENCIES:
        raise InvalidInput(
            "currency.unknown",
            f"{currency!r:.20} is no current currency",
            hint="its code after ISO 4217, such as EUR",
            value=currency[:20],
        )
    # Written so that NaN fails too.
    if not 0 <= amount < math.inf:
        raise InvalidInput(
            "money.out_of_range",
            f"{name} of {amount} {currency} is no amount",
            hint="a finite number that is not negative",
            value=amount,
            limit=0,
        )
