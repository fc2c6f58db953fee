"""The POS of the story: signs customers up, updates them, and remembers what was acknowledged.

It does what a good POS does: every request has an Idempotency-Key, and a request without an answer
is sent again with the same one.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
import unicodedata
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

import aiohttp

from agent.demo.world import WorldProblem

SIGN_UP, UPDATE = "sign-up", "update"

_FIRST_NAMES = ("Vera", "Nils", "Åsa", "Per", "Märta", "Olle", "Ebba", "Hugo", "Saga", "Axel")
_LAST_NAMES = ("Lind", "Berg", "Åberg", "Sjö", "Öst", "Dahl", "Holm", "Ek", "Ström", "Quist")
_CITIES = ("Lund", "Umeå", "Gävle", "Borås", "Örebro", "Malmö", "Kiruna", "Visby")
_SEND_AGAIN_AFTER_S = 0.05
_GIVE_UP_S = 30.0


@dataclass(frozen=True)
class Acknowledged:
    """One change that the agent answered with a 2xx: from then on it must not be lost."""

    change_id: str
    kind: str  # sign-up or update
    email: str
    attributes: Mapping[str, str]


@dataclass
class Round:
    """What the POS saw while it sent some requests."""

    seconds: list[float] = field(default_factory=list)  # from the first try to the answer
    kinds: list[str] = field(default_factory=list)
    sent_again: int = 0  # got no answer at first
    stored_before: int = 0  # of these: the agent had it already

    @property
    def what(self) -> str:
        """Say how many sign-ups and updates there were."""
        counts = {kind: self.kinds.count(kind) for kind in (SIGN_UP, UPDATE)}
        return ", ".join(plural(number, kind) for kind, number in counts.items() if number)

    @property
    def times(self) -> str:
        """Say how long the answers took."""
        p50, most = statistics.median(self.seconds), max(self.seconds)
        return f"answered in {p50 * 1000:.1f} ms (p50), {most * 1000:.1f} ms at most"


class Pos:
    """The POS software at the till."""

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.on_answer: Callable[[], None] = lambda: None
        self._session = session  # knows the agent's address and the token
        self._random = random.Random(seed)  # noqa: S311 - names and moments, not secrets
        self._ids: dict[str, str] = {}  # e-mail → the id that the agent gave for it
        self._count = 0

    @property
    def customers(self) -> int:
        """Give how many customers have signed up."""
        return len(self._ids)

    async def serve(self, *, sign_ups: int = 0, updates: int = 0, at_once: int = 4) -> Round:
        """Sign new customers up and update some known ones, several at a time.

        Raises WorldProblem when the agent refuses one, or stays away.
        """
        seen = Round()
        known = self._random.sample(sorted(self._ids), min(updates, len(self._ids)))
        work = [self._sign_up(seen) for _ in range(sign_ups)]
        work += [self._update(email, seen) for email in known]
        turns = asyncio.Semaphore(at_once)
        try:
            async with asyncio.TaskGroup() as tasks:
                for step in work:
                    tasks.create_task(_in_turn(turns, step))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        return seen

    async def _sign_up(self, seen: Round) -> None:
        self._count += 1
        first, last = self._random.choice(_FIRST_NAMES), self._random.choice(_LAST_NAMES)
        email = f"{_ascii(first)}.{_ascii(last)}.{self._count}@example.test"
        attributes = {"email": email, "firstName": first, "lastName": last}
        self._ids[email] = await self._send(
            "POST", "/api/v3/contacts", Acknowledged("", SIGN_UP, email, attributes), seen
        )

    async def _update(self, email: str, seen: Round) -> None:
        # The number makes each value one of its kind, so that an older one cannot pass for it.
        attributes = {
            "lastName": f"{self._random.choice(_LAST_NAMES)}-{self._random.choice(_LAST_NAMES)}",
            "city": self._random.choice(_CITIES),
            "street": f"Storgatan {len(self.acknowledged) + 1}",
        }
        await self._send(
            "PATCH",
            f"/api/v3/contacts/{self._ids[email]}",
            Acknowledged("", UPDATE, email, attributes),
            seen,
        )

    async def _send(self, method: str, path: str, wish: Acknowledged, seen: Round) -> str:
        """Send until there is an answer; gives the contact's id. Raises WorldProblem."""
        key = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        began = time.perf_counter()
        tries = 0
        while True:
            tries += 1
            try:
                async with self._session.request(
                    method, path, json=dict(wish.attributes), headers={"Idempotency-Key": key}
                ) as answer:
                    body = await answer.json()
                break
            except (aiohttp.ClientError, ConnectionError) as error:
                if time.perf_counter() - began > _GIVE_UP_S:
                    raise WorldProblem(f"The agent did not answer for {_GIVE_UP_S:g} s.") from error
                await asyncio.sleep(_SEND_AGAIN_AFTER_S)
        if answer.status not in (200, 201, 202):
            raise WorldProblem(f"The agent answered {answer.status} to a {wish.kind}: {body}")
        seen.seconds.append(time.perf_counter() - began)
        seen.kinds.append(wish.kind)
        seen.sent_again += tries > 1
        seen.stored_before += tries > 1 and "Idempotent-Replay" in answer.headers
        change_id = answer.headers["Agent-Change"]
        self.acknowledged.append(Acknowledged(change_id, wish.kind, wish.email, wish.attributes))
        self.on_answer()
        return str(body["id"])


def plural(number: int, thing: str) -> str:
    """Give `1 update`, `2 updates`."""
    return f"{number} {thing}" + "s" * (number != 1)


async def _in_turn(turns: asyncio.Semaphore, step: Coroutine[None, None, None]) -> None:
    async with turns:
        await step


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return plain.lower()
