"""Engage's own words, without the customer they may quote. Pure.

What a refusal says reaches people who look after the till, and files that they send on. They need
to know which attribute is wrong and why; whose it is, the change itself says, behind the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import Refused
from agent.masking import mask, without


def unquoted(error: Refused, *data: Mapping[str, Any]) -> Refused:
    """Give a refusal whose words repeat nothing of the data that was sent, nor what looks personal.

    In the place of a value stands its attribute: `[email] is not valid`.
    """
    error.words = without(error.words, *data)
    error.fields = tuple(
        {
            **field,
            "field": mask(field["field"]),
            "message": without(field["message"], *data),
        }
        for field in error.fields
    )
    return error
