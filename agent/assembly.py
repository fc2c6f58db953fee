"""Builds the parts in order, starts and stops them. Imports everybody; nobody but commands, demo
and tests imports it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import __version__, events
from agent.change import Route
from agent.clock import Clock, SystemClock
from agent.config import Config, config_hash
from agent.contact import Key
from agent.delivery.batch import pacing, verify
from agent.delivery.batch.bulk import BulkUploader
from agent.delivery.batch.places import Places
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.sftp import SftpServer
from agent.delivery.batch.sftp_login import Account
from agent.delivery.batch.spool import Spool
from agent.delivery.batch.uploader import Uploader
from agent.delivery.dispatcher import Dispatcher
from agent.delivery.engage import answers
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.finding import find_contact
from agent.delivery.engage.pace import Pace
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link, LinkState
from agent.delivery.stall import StallDetector
from agent.doctor import calls as doctor_calls
from agent.doctor.doctor import Doctor
from agent.errors import AgentError, IntakeError, JournalError, JournalUnavailable
from agent.intake import description, server
from agent.intake.contacts import ContactCalls
from agent.intake.customers import Customers
from agent.intake.desk import Desk, RouteSwitch
from agent.intake.export import ExportCall
from agent.intake.guard import COMMANDS, Guard, TokenInHeader, WrongTokens
from agent.intake.listening import Server
from agent.intake.payload import Rules
from agent.journal import changes, driver, meta, origin
from agent.journal.database import Database
from agent.journal.journal import Journal
from agent.journal.opening import Opening
from agent.journal.rescue.reminder import unsettled
from agent.lookup.calls import LookupCalls
from agent.metrics import Metrics
from agent.notify import Notifier, watchdog_s
from agent.register import digests
from agent.register.digests import Digests
from agent.register.folder import ExportFolder
from agent.register.reader import ExportReader
from agent.schedule import Schedule
from agent.secrets import SecretSource, path_of, read_secret
from agent.status import calls as status_calls
from agent.status import metrics as metrics_calls
from agent.status.acting import Acting
from agent.status.facts import RegisterFill
from agent.status.page import Page
from agent.status.program import to_json
from agent.status.session import Sessions
from agent.status.signing import Signing
from agent.status.snapshot import Observer
from agent.status.stream import Stream
from agent.status.support import Support
from agent.tls import certificate_of
from agent.tokens import Tokens

# Beside the journal, for whoever may read that folder: the commands of this machine.
COMMAND_TOKEN = "command-token"  # noqa: S105 - a file's name
# A loop that has not turned for so long is stuck, whatever it is doing.
_STUCK_AFTER_S = 30.0
_STATUS_EVERY_S = 5.0
_OPENING_TOLD_EVERY_S = 5.0
# As long as the opening of a journal makes progress, systemd waits for it.
_OPENING_MORE_S = 60.0
_AFTER_BUG_S = 5.0
# So far off certificates, dates and people are misled; less is said by nobody.
_WRONG_CLOCK_S = 300.0


class Agent:
    """A till-agent: made from its settings, started, stopped."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.machine = origin.machine_here()
        self.notifier = Notifier()
        self.metrics = Metrics()
        self._command_token = secrets.token_urlsafe(32)
        self.journal = self._journal()
        self.gates = {
            Route.API: RouteGate(Route.API, self.clock, probe_s=config.link.probe_s),
            # Slowly, so that a wrong password does not get the account locked.
            Route.FILE: RouteGate(
                Route.FILE, self.clock, probe_s=config.sftp.poll_s, spread=pacing.spread
            ),
        }
        self.link = Link(self.clock, offline_after=config.link.offline_after)
        self.client = EngageClient(
            config.engage,
            partial(read_secret, config.engage.api_key_file),
            self.link,
            Pace(
                self.clock,
                per_s=config.engage.max_requests_per_s,
                backlog_per_s=config.engage.backlog_requests_per_s,
            ),
            self.clock,
            on_call=self.metrics.called,
        )
        self.dispatcher = Dispatcher(
            config,
            self.journal,
            self.client,
            self.gates[Route.API],
            self.clock,
            backlog_waits=lambda: self.sealer.decides,
            on_attempt=self.metrics.attempted,
        )
        spool = Spool(config.fallback.spool)
        self._places = Places(config, spool)
        self.sealer = Sealer(config, self.journal, spool, self.link, self.clock)
        asked = verify.Engage(
            look_up=self._look_up,
            fetch=self._fetch,
            patch=self._patch,
            make_member=self._make_member,
            is_open=self._api_is_open,
        )
        self.uploader = self._uploader(spool) or self._bulk_uploader(asked)
        self.verifier = verify.Verifier(
            config,
            self.journal,
            asked,
            self.uploader.imported,
            self.clock,
            on_attempt=self.metrics.attempted,
        )
        self.schedule = Schedule(
            self.journal,
            self._sure_now,
            retain_days=config.journal.retain_days,
            recognise_days=config.register.retain_days,
        )
        self.tokens = Tokens(config.server.tokens_file)
        self.digests = Digests(digests.path_of(config.journal.path))
        self.exports = self._export_reader()
        self.stall = StallDetector(
            self.journal,
            self.link,
            self.gates[Route.API],
            self.clock,
            unanswered=lambda: self.verifier.unanswered,
        )
        self.observer = self._observer()
        self.stream = Stream(self.observer)
        self.doctor = Doctor(config, self.clock, self.client)
        self.support = Support(
            config, self.journal, self.observer, self.metrics, self._doctors_rows, self.clock
        )
        self.lookups = LookupCalls(
            config, self.journal, self.client, self.clock, server.problem, self._digest
        )
        self.server = Server(
            self._application(),
            config.server,
            certificate_of(config.server.tls_certificate_file, config.server.tls_key_file),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    # --- building -----------------------------------------------------------------------------

    def _journal(self) -> Journal:
        settings = self.config.journal
        way = driver.with_key(settings.key_file)
        return Journal(
            Database(settings.path, way, on_commit=self.metrics.committed),
            self.clock,
            verify=self.config.fallback.verify,
            min_free_mb=settings.min_free_mb,
            on_taken=self.metrics.taken,
        )

    def _uploader(self, spool: Spool) -> Uploader | None:
        sftp = self.config.sftp
        if self.config.fallback.transport != "sftp" or sftp.known_hosts_file is None:
            return None
        sftp_server = SftpServer(
            host=sftp.host,
            port=sftp.port,
            username=sftp.username,
            directory=sftp.directory,
            timeout_s=sftp.timeout_s,
            password=_reader(sftp.password_file),
            private_key_file=_place(sftp.private_key_file),
            known_hosts_file=sftp.known_hosts_file,
        )
        return Uploader(
            self.config,
            self.journal,
            sftp_server,
            self.sealer,
            spool,
            self.gates[Route.FILE],
            self.clock,
        )

    def _export_reader(self) -> ExportReader:
        sftp, directory = self.config.sftp, self.config.register.export_directory
        folder = None
        if directory is not None and sftp.known_hosts_file is not None:
            account = Account(
                host=sftp.host,
                port=sftp.port,
                username=sftp.username,
                directory=directory,
                timeout_s=sftp.timeout_s,
                password=_reader(sftp.password_file),
                private_key_file=_place(sftp.private_key_file),
                known_hosts_file=sftp.known_hosts_file,
                directory_setting="register.export_directory",
            )
            folder = ExportFolder(account)
        return ExportReader(
            self.config,
            self.journal,
            folder,
            self.digests,
            self.clock,
            may_read=self._sftp_is_open,
        )

    def _sftp_is_open(self) -> bool:
        """Say whether the login at the file server may be used: a refused one only slowly."""
        by_bulk = self.config.fallback.transport != "sftp"
        return by_bulk or self.gates[Route.FILE].is_open

    def _digest(self, key: Key) -> int | None:
        return self.digests.of(key) if self.digests.is_open else None

    def _bulk_uploader(self, engage: verify.Engage) -> BulkUploader:
        return BulkUploader(
            self.config,
            self.journal,
            self.sealer,
            self._send_bulk,
            engage,
            self._bulk_is_open,
            self.clock,
        )

    async def _send_bulk(
        self, method: str, contact_type: str, contacts: Sequence[Mapping[str, Any]]
    ) -> str:
        return await self.client.call(
            method,
            "/contacts/bulk",
            answers.queued,
            query={"contactType": contact_type},
            body=contacts,
            person=False,
        )

    def _bulk_is_open(self) -> bool:
        return self._api_is_open() and self.gates[Route.FILE].is_open

    async def _look_up(self, keys: Sequence[Key], contact_type: str | None) -> str | None:
        async def ask(_: str, query: dict[str, str]) -> str | None:
            return await self.client.call(
                "GET", "/contacts/id", answers.looked_up, query=query, person=False
            )

        return await find_contact(ask, self.config.engage, keys, contact_type)

    async def _fetch(self, contact_id: str) -> dict[str, Any]:
        return await self.client.call(
            "GET", f"/contacts/{contact_id}", answers.read_contact, person=False
        )

    async def _patch(self, contact_id: str, body: dict[str, Any]) -> None:
        await self.client.call(
            "PATCH", f"/contacts/{contact_id}", answers.updated, body=body, person=False
        )

    async def _make_member(self, contact_id: str) -> None:
        await self.client.call(
            "POST",
            f"/contacts/{contact_id}/updateContactType",
            answers.updated,
            query={"contactTypeId": "Member"},
            person=False,
        )

    def _api_is_open(self) -> bool:
        return self.gates[Route.API].is_open and self.link.state is not LinkState.OFFLINE

    def _observer(self) -> Observer:
        return Observer(
            self.config,
            self.journal,
            self.clock,
            link=self.link,
            sftp_link=self.uploader.link if isinstance(self.uploader, Uploader) else None,
            gates=self.gates,
            problems=self._problems,
            last_delivery=lambda: self.dispatcher.last_delivery_at,
            register=self._register_fill,
            clock_ahead_s=self._clock_ahead_s,
        )

    def _register_fill(self) -> RegisterFill | None:
        if not self.exports.is_on:
            return None
        fill = self.exports.fill
        told_at, read_at = (
            datetime.fromisoformat(text) if text else None for text in (fill.told_at, fill.read_at)
        )
        return RegisterFill(fill.members, told_at, read_at, fill.set_aside)

    def _problems(self) -> Sequence[str]:
        found = (
            self._clock_problem(),
            self.journal.problem,
            self.client.problem,
            unsettled(self.config.journal.path),
            self.sealer.problem,
            *self._uploaders_problems(),
            self.stall.problem,
            self.stall.look_up_problem,
            self.server.problem,
            self.exports.problem,
        )
        return [text for text in found if text]

    def _uploaders_problems(self) -> Sequence[str | None]:
        if isinstance(self.uploader, Uploader):
            return self.uploader.problems
        return (self.uploader.problem,)

    async def _doctors_rows(self) -> list[dict[str, str]]:
        return [row.to_json() for row in await self.doctor.examine()]

    def _sure_now(self) -> datetime | None:
        ahead_s = self.client.server_clock_offset_s
        return None if ahead_s is None else self.clock.now() + timedelta(seconds=ahead_s)

    def _clock_ahead_s(self) -> float | None:
        behind_s = self.client.server_clock_offset_s
        return None if behind_s is None else -behind_s

    def _clock_problem(self) -> str | None:
        ahead_s = self.client.server_clock_offset_s
        if ahead_s is None or abs(ahead_s) < _WRONG_CLOCK_S:
            return None
        return (
            f"The till's clock is wrong: it is {'behind' if ahead_s > 0 else 'ahead of'} Engage's "
            f"by about {_span(abs(ahead_s))}. Set it, or let it be set from the network; with a "
            "wrong clock Engage's certificate may look invalid. What waits is kept."
        )

    def _application(self) -> web.Application:
        settings = self.config.server
        calls = ContactCalls(
            self.journal,
            rules_of(self.config),
            self.clock,
            wait_s=settings.wait_s,
            dedupe_window_s=settings.dedupe_window_s,
            worth_waiting=self._api_is_open,
            narrow=self.lookups.profiles.narrow,
        )
        desk = Desk(
            self.journal,
            self.clock,
            rules_of(self.config),
            seal=self._seal,
            drain=self._drain,
            withdraw=self.uploader.withdraw,
            place_of=self._places.place_of,
            routes=self._switches(),
        )
        customers = Customers(
            self.journal,
            self.clock,
            digest=self._digest,
            forget=self.lookups.cache.forget_absences,
        )
        wrong_tokens = WrongTokens(self.clock.monotonic)
        page_calls, admits_person = self._page_calls(desk, wrong_tokens)
        export = ExportCall(self.journal, store=self.config.store.id, till=self.config.store.till)
        guard = Guard(
            [TokenInHeader(self._name_for, wrong_tokens)],
            listens_on=settings.host,
            allowed_hosts=settings.allowed_hosts,
            allowed_origins=settings.allowed_origins,
            admits_person=admits_person,
        )
        return server.application(
            [
                *self.lookups.routes(),
                *calls.routes(),
                *export.routes(),
                *desk.routes(),
                *customers.routes(),
                *description.routes(),
                *page_calls,
                *metrics_calls.routes(self.observer, self.metrics),
                *doctor_calls.routes(self.doctor),
                *self.support.routes(),
            ],
            guard.middleware,
            caller_timeout_s=settings.caller_timeout_s,
            on_answer=self.metrics.answered,
        )

    def _page_calls(
        self, desk: Desk, wrong_tokens: WrongTokens
    ) -> tuple[list[web.RouteDef], Callable[[web.Request], bool]]:
        """Give the page's calls, and what the guard asks about them."""
        sessions = Sessions(self.tokens, self.clock)
        page = Page(self.observer, sessions, self.config.store)
        signing = Signing(
            page, sessions, status_of=server.status_of, wrong_token=wrong_tokens.one_more
        )
        acting = Acting(page, sessions, signing, desk, self.clock.now)
        calls = status_calls.routes(self.observer, page, signing, acting, self.stream)
        return calls, signing.admits

    def _name_for(self, token: str) -> str | None:
        """Know the tokens of the POS software, and the one that this machine's commands use."""
        # Headers may carry bytes that are no UTF-8; they come as surrogates.
        given = token.encode(errors="surrogatepass")
        if hmac.compare_digest(given, self._command_token.encode()):
            return COMMANDS
        return self.tokens.name_for(token)

    async def _seal(self) -> int:
        made = await self.sealer.seal_now()
        self.uploader.hurry()
        return made

    async def _drain(self) -> Mapping[str, Any]:
        """Try now what waits for its next try; gives the picture after that."""
        await self.journal.write(changes.forget_waits)
        await self.verifier.hurry()
        for gate in self.gates.values():
            gate.hurry()
        self.uploader.hurry()
        self.journal.news.recorded.set()
        return to_json(await self.observer.look(anew=True))

    def _switches(self) -> Mapping[str, RouteSwitch]:
        return {
            route.value: RouteSwitch(
                pause=partial(self._pause, route),
                resume=partial(self._resume, route),
                describe=partial(_describe, gate),
            )
            for route, gate in self.gates.items()
        }

    async def _pause(self, route: Route) -> None:
        await self.journal.write(partial(meta.pause, route=route))
        self.gates[route].paused = True
        events.log().info("route_paused", route=route)

    async def _resume(self, route: Route) -> None:
        await self.journal.write(partial(meta.resume, route=route))
        if self.gates[route].asks:
            redirected = await self.journal.write(partial(origin.confirm, machine=self.machine))
            events.log().warning("routes_confirmed", changes=redirected)
            for gate in self.gates.values():  # the question was one
                gate.question = None
        self.gates[route].resume()
        self.uploader.hurry()
        self.exports.hurry()
        self.journal.news.recorded.set()
        events.log().info("route_resumed", route=route)

    # --- living -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Give where it listens, for somebody on this machine."""
        return self.config.server.address(self.server.port)

    async def start(self) -> None:
        """Open the journal, start delivery, listen, and tell systemd, in this order.

        Raises JournalInUse, SchemaTooNew, JournalUnavailable, OSError; nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        _make_folder(self.config.journal.path.parent)
        taken_over = await self._open_journal()
        self._stack.push_async_callback(self.journal.close)
        for route in await self.journal.read(meta.paused):
            self.gates[route].paused = True
        await self._ask_if_elsewhere()
        if self.exports.is_on:
            with contextlib.suppress(AgentError):  # the reader says it on the page
                self.digests.open()
        await self.client.open()
        self._stack.push_async_callback(self.client.close)
        self._stack.push_async_callback(self.lookups.close)
        self.schedule.start()
        self._stack.callback(self.schedule.stop)
        self._stack.push_async_callback(self._end_tasks)
        loops = [
            self.dispatcher.run,
            self.sealer.run,
            self.uploader.run,
            self.verifier.run,
            self.lookups.cache.run,
            self.exports.run,
            self._watch,
        ]
        self._tasks = [asyncio.create_task(_forever(loop)) for loop in loops]
        await self.server.start()
        self.doctor.port = self.server.port
        self._stack.push_async_callback(self.server.stop)
        self._stack.callback(self.journal.news.dismiss)
        self._stack.push_async_callback(self.stream.close)
        self._publish_command_token()
        events.log().info(
            "started",
            version=__version__,
            version_sqlite=self.journal.database.driver.version,
            config=config_hash(self.config),
            store=self.config.store.id,
            till=self.config.store.till,
            port=self.server.port,
            unknown=taken_over,
        )
        self.notifier.ready((await self.observer.look()).verdict.sentence)

    async def _ask_if_elsewhere(self) -> None:
        """Send nothing unasked that was taken for another Engage, or on another machine."""
        enter = partial(origin.enter, base_url=self.config.engage.base_url, machine=self.machine)
        if (question := await self.journal.write(enter)) is None:
            return
        events.log().error("routes_ask", reason=question)
        for gate in self.gates.values():
            gate.ask(question)

    async def _open_journal(self) -> int:
        """Open it, and tell systemd and the log how far that is: a migration may take minutes."""
        opening = self.journal.database.opening
        opening.tell = self._tell_of_opening
        telling = asyncio.create_task(self._watch_opening(opening))
        try:
            return await self.journal.open()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _watch_opening(self, opening: Opening) -> None:
        seen = opening.signs
        while True:
            await asyncio.sleep(_OPENING_TOLD_EVERY_S)
            if opening.phase is not None:
                self._tell_of_opening(opening, is_moving=opening.signs != seen)
            seen = opening.signs

    def _tell_of_opening(self, opening: Opening, *, is_moving: bool = True) -> None:
        self.notifier.starting(opening.words(), _OPENING_MORE_S if is_moving else None)
        events.log().info(
            "journal_opening",
            phase=opening.phase,
            share=None if opening.share is None else round(opening.share, 2),
            seconds=round(opening.seconds),
        )

    def _publish_command_token(self) -> None:
        """Let who may read the journal's folder use the commands, until the agent stops."""
        path = self.config.journal.path.with_name(COMMAND_TOKEN)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(self._command_token)
        self._stack.callback(path.unlink, missing_ok=True)

    async def stop(self) -> None:
        """Take no more requests, claim nothing more, and close the journal. Safe to call twice."""
        self.notifier.stopping()
        await self._stack.aclose()
        events.log().info("stopped")

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _watch(self) -> None:
        """Feed the watchdog while the parts make progress, and keep systemd's status line true."""
        pause_s = min(_STATUS_EVERY_S, watchdog_s() or _STATUS_EVERY_S)
        while True:
            await asyncio.sleep(pause_s)
            stuck_s = self.clock.monotonic() - self.dispatcher.beat
            # Full or overloaded is said elsewhere, and no reason to be restarted.
            with contextlib.suppress(JournalError, IntakeError):
                await self.journal.write(lambda db: None)  # the writer answers
                if stuck_s < _STUCK_AFTER_S:
                    self.notifier.alive()
                await self.stall.look()
                await self.journal.leave_mark()
                await self.journal.tidy()
            self.notifier.status((await self.observer.look()).verdict.sentence)


def rules_of(config: Config) -> Rules:
    """Give what intake must know of the settings."""
    return Rules(
        contact_key=config.engage.contact_key,
        default_contact_type=config.engage.default_contact_type,
        attributes=config.engage.attributes or None,
        required=config.engage.required,
        minimum_age=config.engage.minimum_age,
        phone_region=config.engage.phone_region,
        source=config.store.source,
        store_external_id=config.store.id,
        country_code=config.store.country_code,
    )


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run one of the agent's loops; a bug in it is logged, and after a rest it begins anew."""
    while True:
        try:
            await loop()
        except Exception as error:
            events.log().error("loop_bug", error=type(error).__name__, exception=error)
            await asyncio.sleep(_AFTER_BUG_S)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _describe(gate: RouteGate) -> dict[str, Any]:
    return {"state": gate.state, "reason": gate.reason}


def _reader(source: SecretSource | None) -> Any:
    return partial(read_secret, source) if source is not None else None


def _place(source: SecretSource | None) -> Any:
    if source is None:
        return None
    return partial(path_of, source)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalUnavailable(
            f"The journal's folder {folder} cannot be made: {error.strerror}. Nothing was changed. "
            "Create it, or give the agent's user write access to the folder above."
        ) from error
