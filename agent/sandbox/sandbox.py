"""The whole sandbox: Engage, the SFTP server, its import and export, and the control port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from agent.sandbox.control import ControlServer
from agent.sandbox.engage import Demands, EngageServer, LoggedRequest
from agent.sandbox.errors import EngageError
from agent.sandbox.exporter import PER_FILE, Exporter
from agent.sandbox.faults import Fault, Faults
from agent.sandbox.importer import ImportedFile, Importer
from agent.sandbox.listener import HOST
from agent.sandbox.register import Register, Tenant
from agent.sandbox.sftp import (
    SftpOperation,
    SftpServer,
    known_hosts_line,
    load_host_key,
    public_line,
)

_SAVE_AFTER_S = 0.2


class Sandbox:
    """An Engage, its SFTP server and its import on loopback.

    Use it as `async with Sandbox(folder) as sandbox:`. All calls must come from the loop on which
    it was started; those that are not `async` take effect at once.
    """

    def __init__(
        self,
        directory: Path,
        *,
        engage_port: int = 0,
        sftp_port: int = 0,
        control_port: int = 0,
        api_key: str = "sandbox-key",
        contact_key: str = "email",
        custom_key: str = "memberNumber",
        contact_types: tuple[str, ...] = ("Member", "Contact"),
        required: Mapping[str, tuple[str, ...]] | None = None,
        custom_attributes: tuple[str, ...] = (),
        minimum_age: int = 0,
        rate_limit: int = 200,
        create_timeout_s: float = 9.5,
        bulk_delay_s: float = 0.2,
        import_every_s: float = 2.0,
        import_directory: str = "/integration/contactImport",
        export_directory: str = "/integration/customerExport",
        sftp_username: str = "sandbox",
        sftp_password: str = "sandbox-password",  # noqa: S107 - guards nothing, and is printed
        authorized_keys: Iterable[str] = (),
        snapshot: Path | None = None,
        seed: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare everything; nothing runs yet.

        Args:
            directory: Holds the SFTP folder (`sftp/`), the host key and a client's key. Made if
                it is missing; kept on stop.
            engage_port: Port of Engage; 0 takes any free one, also for the other two.
            sftp_port: Port of the SFTP server.
            control_port: Port of the control calls.
            api_key: What the `apikey` header must be.
            contact_key: The attribute a contact must have; unique among approved contacts of one
                type.
            custom_key: What `customKey` means in a look-up.
            contact_types: Handles of the types there are; the first is the default.
            required: Further attributes a type demands, by type.
            custom_attributes: Attributes beside the standard ones; others are dropped silently.
            minimum_age: Years; 0 asks for none.
            rate_limit: Requests a second before 429; 0 for no limit.
            create_timeout_s: When a slow create is answered with 504 and rolled back.
            bulk_delay_s: How long bulk calls stay queued.
            import_every_s: How often the importer looks; 0 only on `import_now()`.
            import_directory: Where it looks, as an SFTP client sees it.
            export_directory: Where the member export is written, as an SFTP client sees it.
            sftp_username: Of the one SFTP account.
            sftp_password: Of the one SFTP account.
            authorized_keys: Public keys that may log in, as lines.
            snapshot: File in which the contacts outlive the sandbox.
            seed: Makes the chance of `share` repeatable.
            tls: A server's context; Engage then speaks https.
        """
        self.directory = directory
        self.api_key = api_key
        self.import_directory = import_directory
        self.export_directory = export_directory
        self.sftp_username = sftp_username
        self.sftp_password = sftp_password
        self.is_down = False
        self.tenant = Tenant(
            contact_key=contact_key,
            custom_key=custom_key,
            contact_types=contact_types,
            default_contact_type=contact_types[0],
            required=required or {},
            custom_attributes=custom_attributes,
            minimum_age=minimum_age,
        )
        self._scheme = "http" if tls is None else "https"
        self._ports = (engage_port, sftp_port, control_port)
        self._demands = Demands(api_key, rate_limit, create_timeout_s, bulk_delay_s)
        self._import_every_s = import_every_s
        self._authorized_keys = tuple(authorized_keys)
        self._snapshot = snapshot
        self._faults = Faults(seed=seed, on_change=self._apply)
        self._register = Register(self.tenant, on_change=self._mark_dirty)
        self._importer = Importer(self.import_path, self._register, self._faults)
        self._exporter = Exporter(self.export_path, self._register, self._faults)
        self._engage = EngageServer(self._register, self._faults, self._demands, tls)
        self._control = ControlServer(self)
        self._sftp: SftpServer | None = None
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._fault_end: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the ports and serve.

        Raises:
            OSError: A port is taken, or the directory cannot be written.
            ValueError: The snapshot cannot be read.
        """
        engage_port, sftp_port, control_port = self._ports
        self.import_path.mkdir(parents=True, exist_ok=True)
        self.export_path.mkdir(parents=True, exist_ok=True)
        host_key = load_host_key(self.directory / "host_key")
        client_key = load_host_key(self.sftp_private_key_file)
        self._load_snapshot()
        self._sftp = SftpServer(
            self.sftp_root,
            self.import_directory,
            self.export_directory,
            self._faults,
            self._importer,
            username=self.sftp_username,
            password=self.sftp_password,
            host_key=host_key,
            authorized_keys=(*self._authorized_keys, public_line(client_key)),
        )
        try:
            await self._engage.start(engage_port)
            self._sftp.start(sftp_port)
            await self._control.start(control_port)
        except BaseException:
            await self.stop()
            raise
        self._start_tasks()
        self._apply()

    async def stop(self) -> None:
        """Stop at once, whatever hangs; saves the snapshot. Safe to repeat."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._fault_end is not None:
            self._fault_end.cancel()
        await self._control.stop()
        await self._engage.stop()
        if self._sftp is not None:
            await self._sftp.stop()
        if self._dirty.is_set():
            self._save_snapshot()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def _start_tasks(self) -> None:
        loop = asyncio.get_running_loop()
        if self._import_every_s > 0:
            self._tasks.append(loop.create_task(self._importer.run(self._import_every_s)))
        if self._snapshot is not None:
            self._tasks.append(loop.create_task(self._keep_snapshot()))

    # --- where it is ----------------------------------------------------------------------------

    @property
    def engage_port(self) -> int:
        """Engage's port."""
        return self._engage.listener.port

    @property
    def engage_url(self) -> str:
        """Engage's base URL, without a path."""
        return f"{self._scheme}://{HOST}:{self.engage_port}"

    @property
    def sftp_host(self) -> str:
        """The SFTP server's address."""
        return HOST

    @property
    def sftp_port(self) -> int:
        """The SFTP server's port."""
        return self._running_sftp.listener.port

    @property
    def sftp_root(self) -> Path:
        """The folder an SFTP client sees as `/`."""
        return self.directory / "sftp"

    @property
    def import_path(self) -> Path:
        """The import folder on this machine's disk."""
        return self.sftp_root / self.import_directory.lstrip("/")

    @property
    def export_path(self) -> Path:
        """The folder of the member export on this machine's disk."""
        return self.sftp_root / self.export_directory.lstrip("/")

    @property
    def sftp_private_key_file(self) -> Path:
        """A private key with which one may log in too."""
        return self.directory / "client_key"

    @property
    def host_key_line(self) -> str:
        """The line for known_hosts."""
        return known_hosts_line(self._running_sftp.host_key, self.sftp_port)

    @property
    def host_key_fingerprint(self) -> str:
        """`SHA256:…`."""
        return self._running_sftp.host_key.get_fingerprint()

    @property
    def control_url(self) -> str:
        """The control port's URL."""
        return f"http://{HOST}:{self._control.port}"

    def addresses(self) -> dict[str, Any]:
        """Return all one needs to connect, as JSON values."""
        return {
            "engageUrl": self.engage_url,
            "apiKey": self.api_key,
            "contactKey": self.tenant.contact_key,
            "sftpHost": self.sftp_host,
            "sftpPort": self.sftp_port,
            "sftpUsername": self.sftp_username,
            "sftpPassword": self.sftp_password,
            "sftpPrivateKeyFile": str(self.sftp_private_key_file),
            "importDirectory": self.import_directory,
            "exportDirectory": self.export_directory,
            "hostKeyLine": self.host_key_line,
            "hostKeyFingerprint": self.host_key_fingerprint,
            "controlUrl": self.control_url,
            "pid": os.getpid(),
        }

    @property
    def _running_sftp(self) -> SftpServer:
        if self._sftp is None:
            raise RuntimeError("The sandbox has not been started.")
        return self._sftp

    # --- faults ---------------------------------------------------------------------------------

    def down(self) -> None:
        """Take the line down: Engage and SFTP refuse connections, open ones are cut."""
        self.is_down = True
        self._apply()

    def up(self) -> None:
        """Bring the line back; faults stay as they are."""
        self.is_down = False
        self._apply()

    def set_fault(self, kind: str, *, target: str | None = None, **given: Any) -> Fault:
        """Switch a fault on; see `agent.sandbox.faults` for kinds, parameters and limits.

        Returns:
            The fault; its `hits` go on counting.

        Raises:
            FaultError: It does not exist or is described wrongly.
        """
        return self._faults.add(kind, target=target, **given)

    def clear_faults(
        self, *, fault_id: int | None = None, kind: str | None = None, target: str | None = None
    ) -> int:
        """Switch off all faults, or those that fit; returns how many. The line stays as it is."""
        return self._faults.remove(fault_id=fault_id, kind=kind, target=target)

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are on."""
        return self._faults.listed()

    def _apply(self) -> None:
        """Open and close the ports as `down` and the faults want it now."""
        if self._sftp is None or not self.engage_port:
            return
        servers: tuple[tuple[str, EngageServer | SftpServer], ...] = (
            ("engage", self._engage),
            ("sftp", self._sftp),
        )
        for target, server in servers:
            if self.is_down or self._faults.standing(target, "refuse"):
                server.listener.close()
                server.cut_connections()
            else:
                server.listener.open()
        self._wake_at_next_end()

    def _wake_at_next_end(self) -> None:
        if self._fault_end is not None:
            self._fault_end.cancel()
        next_end_s = self._faults.next_end_s()
        if next_end_s is not None:
            loop = asyncio.get_running_loop()
            self._fault_end = loop.call_later(next_end_s + 0.001, self._apply)

    # --- what Engage holds ------------------------------------------------------------------------

    def contacts(self) -> list[dict[str, Any]]:
        """Return all contacts as Engage answers them, oldest first."""
        return [each.document() for each in self._register.contacts()]

    def contact(self, contact_id: str) -> dict[str, Any] | None:
        """Return one contact, or None."""
        try:
            return self._register.get(contact_id).document()
        except EngageError:
            return None

    def find(self, key: str, value: Any) -> list[dict[str, Any]]:
        """Return the contacts whose attribute has this value; e-mail compares without case."""
        return [each.document() for each in self._register.find(key, value)]

    def seed(self, *, approved: bool = True, source: str | None = None, **attributes: Any) -> str:
        """Put a contact into the register and return its contactId.

        Args:
            approved: False for an unapproved contact.
            source: Its `meta.sourceType`.
            attributes: As in a create's body, `contactType` among them.

        Raises:
            EngageError: The rules forbid it, the key's uniqueness apart.
        """
        contact = self._register.create(
            attributes, source=source, approved=approved, is_key_unique=False
        )
        return contact.contact_id

    def change(self, contact_id: str, **attributes: Any) -> None:
        """Change a contact, as when somebody does so in Engage; None erases a value.

        Raises:
            EngageError: The rules forbid it.
        """
        self._register.update(contact_id, attributes)

    def erase(self, contact_id: str) -> None:
        """Forget a contact, as when somebody erases it in Engage."""
        self._register.erase(contact_id)

    def counts(self) -> dict[str, Any]:
        """Return what happened so far.

        `{contacts, creates, updates, duplicates, requests, by_status: {"201": n, "none": n},
        errors: {errorCode: n}, logins, uploads, imports: {files, skipped_files, created, updated,
        skipped}}`; `duplicates` is how often two contacts came to have the same key.
        """
        log = self._importer.log
        operations = [] if self._sftp is None else list(self._sftp.operations)
        return {
            "contacts": len(self._register),
            "creates": self._register.creates,
            "updates": self._register.updates,
            "duplicates": self._register.duplicates,
            "requests": self._engage.request_count,
            "by_status": dict(self._engage.status_counts),
            "errors": dict(self._engage.calls.error_counts),
            "logins": sum(each.operation == "login" for each in operations),
            "uploads": sum(each.operation == "open_write" for each in operations),
            "imports": {
                "files": len(log),
                "skipped_files": sum(each.outcome == "skipped" for each in log),
                "created": sum(each.created for each in log),
                "updated": sum(each.updated for each in log),
                "skipped": sum(each.skipped for each in log),
            },
        }

    @property
    def requests(self) -> list[LoggedRequest]:
        """The latest requests to Engage, oldest first."""
        return list(self._engage.requests)

    @property
    def sftp_log(self) -> list[SftpOperation]:
        """What SFTP clients did lately, oldest first."""
        return list(self._running_sftp.operations)

    @property
    def integration_log(self) -> list[ImportedFile]:
        """What the importer did, oldest first."""
        return list(self._importer.log)

    def waiting_files(self) -> list[str]:
        """Return the names in the import folder, temporary ones too."""
        return sorted(path.name for path in self.import_path.iterdir())

    async def import_now(self) -> int:
        """Run the importer once; returns how many files it took."""
        return await self._importer.import_now()

    def export_now(
        self, *, full: bool = False, with_ids: bool = True, per_file: int = PER_FILE
    ) -> list[str]:
        """Write the member export: what is new since the last one, or all members (`full`).

        Returns:
            The names of the files; none where there is no news.
        """
        return self._exporter.export_now(full=full, with_ids=with_ids, per_file=per_file)

    def reset(self) -> None:
        """Forget contacts, logs, counts and faults, and bring the line back."""
        self._register.clear()
        self._engage.clear()
        self._importer.clear()
        self._exporter.clear()
        if self._sftp is not None:
            self._sftp.operations.clear()
        self.is_down = False
        self._faults.remove()

    # --- snapshot -------------------------------------------------------------------------------

    def _mark_dirty(self) -> None:
        self._dirty.set()

    def _load_snapshot(self) -> None:
        if self._snapshot is None:
            return
        self._snapshot.parent.mkdir(parents=True, exist_ok=True)
        if not self._snapshot.exists():
            return
        try:
            self._register.load(json.loads(self._snapshot.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._snapshot} is no snapshot of a sandbox") from error
        self._dirty.clear()

    async def _keep_snapshot(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_SAVE_AFTER_S)
            with contextlib.suppress(OSError):  # a full disk must not end the sandbox
                self._save_snapshot()

    def _save_snapshot(self) -> None:
        if self._snapshot is None:
            return
        self._dirty.clear()
        temporary = self._snapshot.with_name(self._snapshot.name + ".tmp")
        temporary.write_text(json.dumps(self._register.dump()), encoding="utf-8")
        temporary.replace(self._snapshot)
