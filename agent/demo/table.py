"""What was acknowledged against what Engage holds: counted, compared and shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.demo.pos import SIGN_UP, UPDATE, Acknowledged

_TITLES = ("", "acknowledged", "by API", "by file", "in Engage", "lost", "doubled")
_MOST_FINDINGS = 20


@dataclass(frozen=True)
class Line:
    """The count of one kind of change."""

    kind: str
    acknowledged: int
    by_api: int  # the agent says: delivered
    by_file: int  # the agent says: confirmed, which means looked up after the import
    in_engage: int  # what Engage holds says so too, attribute by attribute
    lost: int
    doubled: int


@dataclass(frozen=True)
class Result:
    """The whole count; `findings` names everything that is not as it should be."""

    lines: tuple[Line, ...]
    findings: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Say whether Engage holds exactly what was acknowledged."""
        return not self.findings


@dataclass(frozen=True)
class Evidence:
    """What each side says at the end."""

    acknowledged: Sequence[Acknowledged]  # the POS, in the order of the answers
    changes: Sequence[Mapping[str, Any]]  # the agent: GET /agent/v1/changes
    contacts: Sequence[Mapping[str, Any]]  # Engage
    counts: Mapping[str, Any]  # Engage's own counters


def count(evidence: Evidence) -> Result:
    """Compare the three sides."""
    engage = _by_email(evidence.contacts)
    arrived = _arrived(evidence.acknowledged, engage)
    agent = {change["id"]: change for change in evidence.changes}
    lines = tuple(
        _line(kind, evidence.acknowledged, arrived, agent, engage) for kind in (SIGN_UP, UPDATE)
    )
    findings = [
        *_differences(evidence.acknowledged, engage),
        *_unfinished(evidence.acknowledged, agent),
        *_counters(evidence),
    ]
    return Result(lines, tuple(findings))


def _by_email(contacts: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for contact in contacts:
        found.setdefault(contact["attributes"].get("email", ""), []).append(contact)
    return found


def _newest(acknowledged: Sequence[Acknowledged]) -> dict[tuple[str, str], Acknowledged]:
    """Give for each customer and attribute the change that set it last."""
    return {(each.email, name): each for each in acknowledged for name in each.attributes}


def _arrived(
    acknowledged: Sequence[Acknowledged], engage: Mapping[str, Sequence[Mapping[str, Any]]]
) -> set[str]:
    """Give the changes whose every attribute Engage holds, unless a later change set it anew."""
    newest = _newest(acknowledged)
    return {
        each.change_id
        for each in acknowledged
        if (contacts := engage.get(each.email))
        and all(
            contacts[0]["attributes"].get(name) == value
            for name, value in each.attributes.items()
            if newest[each.email, name] is each
        )
    }


def _line(
    kind: str,
    acknowledged: Sequence[Acknowledged],
    arrived: set[str],
    agent: Mapping[str, Mapping[str, Any]],
    engage: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Line:
    ids = {each.change_id for each in acknowledged if each.kind == kind}
    states = [agent.get(change_id, {}).get("state") for change_id in ids]
    return Line(
        kind=kind,
        acknowledged=len(ids),
        by_api=states.count("delivered"),
        by_file=states.count("confirmed"),
        in_engage=len(ids & arrived),
        lost=len(ids - arrived),
        # Engage sets values: an update that came twice would leave no trace, a sign-up does.
        doubled=sum(len(same) - 1 for same in engage.values()) if kind == SIGN_UP else 0,
    )


def _differences(
    acknowledged: Sequence[Acknowledged], engage: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    found = []
    customers = dict.fromkeys(each.email for each in acknowledged)
    for email in customers:
        holds = len(engage.get(email, ()))
        if holds != 1:
            found.append(f"{email}: Engage holds {holds or 'no'} contact{'s' * (holds > 1)} of it.")
    for (email, name), change in _newest(acknowledged).items():
        for contact in engage.get(email, ())[:1]:
            if (held := contact["attributes"].get(name)) != change.attributes[name]:
                given = change.attributes[name]
                found.append(f"{email}: {name} is {held!r} in Engage, {given!r} was acknowledged.")
    strangers = engage.keys() - customers.keys()
    return found + [f"{email}: nobody signed it up." for email in sorted(strangers)]


def _unfinished(
    acknowledged: Sequence[Acknowledged], agent: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    ids = {each.change_id for each in acknowledged}
    found = [f"Change {change_id} is not in the journal." for change_id in ids - agent.keys()]
    found += [f"Change {change_id} was never acknowledged." for change_id in agent.keys() - ids]
    for change_id in ids & agent.keys():
        if (state := agent[change_id]["state"]) not in ("delivered", "confirmed"):
            found.append(f"Change {change_id} is {state}.")
    return sorted(found)


def _counters(evidence: Evidence) -> list[str]:
    customers = len({each.email for each in evidence.acknowledged})
    wanted = {"contacts": customers, "creates": customers, "duplicates": 0}
    return [
        f"Engage's own count of {name} is {evidence.counts[name]}, not {number}."
        for name, number in wanted.items()
        if evidence.counts[name] != number
    ]


def shown(result: Result) -> str:
    """Give the table, what is wrong, and the verdict in one line."""
    rows = [_TITLES, *(_cells(line) for line in result.lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    text = [
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])],
        )
        for row in rows
    ]
    text += ["", *result.findings[:_MOST_FINDINGS]]
    if len(result.findings) > _MOST_FINDINGS:
        text.append(f"… and {len(result.findings) - _MOST_FINDINGS} more.")
    return "\n".join([*text, verdict(result)])


def _cells(line: Line) -> tuple[str, ...]:
    numbers = (line.acknowledged, line.by_api, line.by_file, line.in_engage, line.lost)
    doubled = str(line.doubled) if line.kind == SIGN_UP else "-"
    return (f"{line.kind}s", *map(str, numbers), doubled)


def verdict(result: Result) -> str:
    """Say in one line how it ended."""
    if result.is_right:
        total = sum(line.acknowledged for line in result.lines)
        return f"Right: all {total} acknowledged changes are in Engage, none lost, none doubled."
    return f"WRONG: {len(result.findings)} things are not as they were acknowledged."
