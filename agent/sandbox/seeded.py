"""Invented purchases and promotions, the same for every contact. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_NAMESPACE = uuid.UUID("6f1c0a52-3f0e-4d6b-9f4f-6a4d2f6f9d10")
_CURRENCY = "SEK"

# number, store, lines of (article, quantity, price); a return carries a negative quantity and a
# positive price (Engage's docs, "Register a return").
_PURCHASES: tuple[tuple[str, str, tuple[tuple[str, int, float], ...]], ...] = (
    ("600-1-000101", "Teststad", (("Wool socks", 2, 79.0), ("Rain coat", 1, 899.0))),
    ("600-1-000107", "Teststad", (("Rain coat", -1, 899.0),)),
    ("600-2-000230", "Provköping", (("Tea, 100 g", 3, 65.0),)),
)
_FIRST_PURCHASE_AT = datetime(2026, 9, 1, 10, 30, tzinfo=UTC)

# name, channels, value type, value, redeemed
_PROMOTIONS: tuple[tuple[str, tuple[str, ...], str, int, bool], ...] = (
    ("Welcome: 15 % off", ("POS", "ECOM"), "PERCENT", 15, False),
    ("Free delivery", ("ECOM",), "MANUAL", 0, False),
    ("50 off in the shop", ("POS",), "MONEY", 50, True),
)


def transactions(contact_id: str, offset: int, count: int) -> dict[str, Any]:
    """Return `{count, offset, totalCount, items}`: purchases and returns, newest first."""
    items = [_transaction(contact_id, place) for place in reversed(range(len(_PURCHASES)))]
    page = items[offset : offset + count]
    return {"count": len(page), "offset": offset, "totalCount": len(items), "items": page}


def promotions(contact_id: str, channel: str | None) -> list[dict[str, Any]]:
    """Return the assigned promotions, redeemed ones too, as Engage does.

    Args:
        contact_id: Whose.
        channel: `POS`, `ECOM` or `OTHER`; None for all.
    """
    return [
        _promotion(contact_id, place)
        for place, (_, channels, *_rest) in enumerate(_PROMOTIONS)
        if channel is None or channel.upper() in channels
    ]


def _transaction(contact_id: str, place: int) -> dict[str, Any]:
    number, store, lines = _PURCHASES[place]
    total = sum(quantity * price for _, quantity, price in lines)
    at = _FIRST_PURCHASE_AT + timedelta(days=9 * place)
    return {
        "id": _id(contact_id, number),
        "transactionNumber": number,
        "createdDate": at.isoformat(),
        "storeName": store,
        "storeType": "Store",
        "numberOfItems": sum(quantity for _, quantity, _ in lines),
        "netPriceSum": total,
        "localNetPriceSum": total,
        "localCurrency": _CURRENCY,
        "groupCurrency": _CURRENCY,
        "externalId": number,
        "lineItems": [_line(contact_id, number, *line) for line in lines],
    }


def _line(
    contact_id: str, number: str, article: str, quantity: int, price: float
) -> Mapping[str, Any]:
    return {
        "id": _id(contact_id, number, article),
        "type": "RETURN" if quantity < 0 else "PURCHASE",
        "sku": article.upper().replace(" ", "-"),
        "articleNumber": article.upper().replace(" ", "-"),
        "articleName": article,
        "articleGroup": "Invented",
        "quantity": quantity,
        "price": price,
        "localPrice": price,
        "discountCode": None,
        "isReturned": False,
    }


def _promotion(contact_id: str, place: int) -> dict[str, Any]:
    name, channels, value_type, value, redeemed = _PROMOTIONS[place]
    money = {"amount": value, "currency": _CURRENCY}
    return {
        "id": _id(contact_id, name),
        "promotionId": _id(name),
        "externalId": f"PROMO-{place + 1}",
        "type": "Multichannel",
        "name": name,
        "expiresOn": "2030-12-31T23:59:59+00:00",
        "heading": name,
        "description": "Invented by the sandbox.",
        "redeemed": redeemed,
        "redeemedOn": "2026-10-01T12:00:00+00:00" if redeemed else None,
        "imageUrl": None,
        "link": None,
        "redemptionChannels": [
            {
                "type": channel,
                "valueType": value_type,
                "value": money if value_type == "MONEY" else value,
                "localValues": [],
                "instruction": "",
            }
            for channel in channels
        ],
    }


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(parts)))
