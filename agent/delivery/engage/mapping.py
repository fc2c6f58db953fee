"""A change in Engage's own words: query and JSON of the calls. Pure.

Facts: source and storeExternalId are query parameters in v3, and headers of that name are ignored
(Engage's docs, "Create contact"); an update sends only the changed attributes, and an empty value
erases ("Update contact").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.change import Payload
from agent.contact import Key

# By which parameter of GET /contacts/id a key is looked up (Engage's docs, "Find contact").
# externalId and memberNumber have none of their own: the tenant maps customKey to one of them.
_LOOKUP_PARAMETERS = {
    "email": "email",
    "mobilePhone": "mobilePhone",
    "socialSecurityNumber": "socialSecurityNumber",
}


def create_query(payload: Payload) -> dict[str, str]:
    """Give the query of POST /contacts."""
    query = {"source": payload.source, "storeExternalId": payload.store_external_id}
    if payload.as_unapproved:
        query["createAsUnapproved"] = "true"
    return {name: value for name, value in query.items() if value}


def create_body(payload: Payload) -> dict[str, Any]:
    """Give the JSON of POST /contacts: what was given, over what the agent fills in."""
    body = {**payload.defaults, **payload.attributes}
    if payload.contact_type:
        body["contactType"] = payload.contact_type
    return body


def update_body(payload: Payload, leave: Iterable[str] = ()) -> dict[str, Any]:
    """Give the JSON of PATCH /contacts/{id}: only what was given, `null` for what is cleared."""
    left = set(leave)
    body = payload.without(left)
    body.update({name: None for name in payload.clear if name not in left})
    return body


def lookup_query(
    keys: Iterable[Key], *, first: str, custom_key: str, contact_type: str | None = None
) -> dict[str, str] | None:
    """Give the query that finds a contact by its best key; None where no key can be asked for.

    The tenant's own key comes first, then the others in a fixed order: one typed parameter, because
    `any` stops at the first type for which a value validates.
    """
    by_name: dict[str, Key] = {}
    for key in keys:
        by_name.setdefault(key.name, key)
    for name in (first, "email", "mobilePhone", "socialSecurityNumber", custom_key):
        key_here = by_name.get(name)
        parameter = _LOOKUP_PARAMETERS.get(name) or ("customKey" if name == custom_key else None)
        if key_here is not None and parameter is not None:
            query = {parameter: key_here.value}
            if contact_type:
                query["contactType"] = contact_type
            return query
    return None
