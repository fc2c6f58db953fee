"""The control port: switches and looks into the sandbox over HTTP, from this machine only.

It asks for no key, so it refuses what a web page in a browser could send: a foreign Host header
(DNS rebinding) and any Origin header.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.sandbox.faults import KINDS, FaultError, nearest
from agent.sandbox.listener import HOST

if TYPE_CHECKING:
    from agent.sandbox.sandbox import Sandbox

_STOP_S = 0.2
_NAMES = {HOST, "localhost"}
_EXPORT_WISHES = {"full": False, "withIds": True, "perFile": 10_000}


class _RefusedError(Exception):
    """A control call that is refused; status and one sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ControlServer:
    """The control calls on their port."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.port = 0
        self._sandbox = sandbox
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int) -> None:
        """Take the port and answer."""
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=_STOP_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._refuse_strangers(request)
            content = await self._call(request)(self, request)
        except _RefusedError as error:
            return web.json_response({"error": str(error)}, status=error.status)
        except FaultError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(content)

    def _refuse_strangers(self, request: web.BaseRequest) -> None:
        name, _, port = request.headers.get("Host", "").rpartition(":")
        if name not in _NAMES or port != str(self.port):
            raise _RefusedError(421, f"The Host header must be {HOST}:{self.port}.")
        if "Origin" in request.headers:
            raise _RefusedError(403, "Web pages may not control the sandbox (Origin header).")

    def _call(self, request: web.BaseRequest) -> _Handler:
        handler = _CALLS.get((request.method, request.path))
        if handler is not None:
            return handler
        paths = dict.fromkeys(path for _, path in _CALLS)
        if request.path in paths:
            allowed = ", ".join(method for method, path in _CALLS if path == request.path)
            raise _RefusedError(405, f"{request.path} takes {allowed}.")
        close = nearest(request.path, list(paths))
        known = ", ".join(f"{method} {path}" for method, path in _CALLS)
        raise _RefusedError(404, f"There is no {request.path} here.{close} Calls: {known}.")

    async def overview(self, request: web.BaseRequest) -> Any:
        """Return addresses, whether the line is down, counts, faults, and the calls there are."""
        sandbox = self._sandbox
        return {
            **sandbox.addresses(),
            "down": sandbox.is_down,
            "counts": sandbox.counts(),
            "faults": sandbox.faults(),
            "waitingFiles": sandbox.waiting_files(),
            "calls": [f"{method} {path}" for method, path in _CALLS],
        }

    async def down(self, request: web.BaseRequest) -> Any:
        """Take the line down."""
        self._sandbox.down()
        return {"down": True}

    async def up(self, request: web.BaseRequest) -> Any:
        """Bring the line back."""
        self._sandbox.up()
        return {"down": False}

    async def faults(self, request: web.BaseRequest) -> Any:
        """Return `{faults: [...], kinds: {target: {kind: {about, parameters, limits}}}}`."""
        kinds = {
            target: {
                kind.name: {
                    "about": kind.about,
                    "parameters": dict(kind.parameters),
                    "limits": list(kind.limits),
                }
                for kind in of_target.values()
            }
            for target, of_target in KINDS.items()
        }
        return {"faults": self._sandbox.faults(), "kinds": kinds}

    async def set_fault(self, request: web.BaseRequest) -> Any:
        """Switch a fault on: `{target?, kind, times?, share?, …}`; returns it with its id."""
        wish = await _json_object(request)
        kind = wish.pop("kind", None)
        target = wish.pop("target", None)
        if not isinstance(kind, str) or not isinstance(target, str | None):
            raise _RefusedError(400, "Give the fault's kind, and target, as texts.")
        return self._sandbox.set_fault(kind, target=target, **wish).described()

    async def clear_faults(self, request: web.BaseRequest) -> Any:
        """Switch off all faults, or those of `?id=`, `?kind=`, `?target=`."""
        fault_id = request.query.get("id")
        if fault_id is not None and not fault_id.isdigit():
            raise _RefusedError(400, "id must be a number.")
        count = self._sandbox.clear_faults(
            fault_id=None if fault_id is None else int(fault_id),
            kind=request.query.get("kind"),
            target=request.query.get("target"),
        )
        return {"cleared": count}

    async def contacts(self, request: web.BaseRequest) -> Any:
        """Return all contacts as Engage answers them."""
        return self._sandbox.contacts()

    async def erase_contact(self, request: web.BaseRequest) -> Any:
        """Erase the contact of `?id=`, as when somebody erases it in Engage."""
        contact_id = request.query.get("id", "")
        if self._sandbox.contact(contact_id) is None:
            raise _RefusedError(404, f"There is no contact with the id {contact_id!r}.")
        self._sandbox.erase(contact_id)
        return {"erased": contact_id}

    async def counts(self, request: web.BaseRequest) -> Any:
        """Return the counts."""
        return self._sandbox.counts()

    async def log(self, request: web.BaseRequest) -> Any:
        """Return `{requests, imports, sftp}`, oldest first; requests without their bodies."""
        return {
            "requests": [
                {
                    "at": each.at,
                    "method": each.method,
                    "path": each.path,
                    "query": each.query,
                    "status": each.status,
                    "fault": each.fault,
                }
                for each in self._sandbox.requests
            ],
            "imports": [asdict(each) for each in self._sandbox.integration_log],
            "sftp": [asdict(each) for each in self._sandbox.sftp_log],
        }

    async def import_now(self, request: web.BaseRequest) -> Any:
        """Run the importer once."""
        return {"files": await self._sandbox.import_now()}

    async def export_now(self, request: web.BaseRequest) -> Any:
        """Write the member export: `{full?, withIds?, perFile?}`; returns `{files: [names]}`."""
        wish = await _json_object(request) if request.can_read_body else {}
        full, with_ids, per_file = (wish.get(name, usual) for name, usual in _EXPORT_WISHES.items())
        if not (isinstance(full, bool) and isinstance(with_ids, bool)):
            raise _RefusedError(400, "full and withIds must be true or false.")
        if isinstance(per_file, bool) or not isinstance(per_file, int) or per_file < 1:
            raise _RefusedError(400, "perFile must be a whole number above 0.")
        files = self._sandbox.export_now(full=full, with_ids=with_ids, per_file=per_file)
        return {"files": files}

    async def reset(self, request: web.BaseRequest) -> Any:
        """Forget everything and switch all faults off."""
        self._sandbox.reset()
        return {"reset": True}


_Handler = Callable[[ControlServer, web.BaseRequest], Awaitable[Any]]

_CALLS: dict[tuple[str, str], _Handler] = {
    ("GET", "/"): ControlServer.overview,
    ("POST", "/down"): ControlServer.down,
    ("POST", "/up"): ControlServer.up,
    ("GET", "/faults"): ControlServer.faults,
    ("POST", "/faults"): ControlServer.set_fault,
    ("DELETE", "/faults"): ControlServer.clear_faults,
    ("GET", "/contacts"): ControlServer.contacts,
    ("DELETE", "/contacts"): ControlServer.erase_contact,
    ("GET", "/counts"): ControlServer.counts,
    ("GET", "/log"): ControlServer.log,
    ("POST", "/import"): ControlServer.import_now,
    ("POST", "/export"): ControlServer.export_now,
    ("POST", "/reset"): ControlServer.reset,
}


async def _json_object(request: web.BaseRequest) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise _RefusedError(400, "The body must be JSON.") from error
    if not isinstance(body, dict):
        raise _RefusedError(400, "The body must be a JSON object.")
    return body
