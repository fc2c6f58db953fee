"""An Engage, its SFTP server and its file import, on loopback, with faults that can be switched.

For integrators without a staging tenant, for the demo and for the tests. It shares nothing with
the agent it tests: what both know about Engage they know from Engage's docs, each by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.sandbox.faults import Fault as Fault
    from agent.sandbox.faults import FaultError as FaultError
    from agent.sandbox.sandbox import Sandbox as Sandbox

__all__ = ["Fault", "FaultError", "Sandbox"]


def __getattr__(name: str) -> Any:
    """Import the public names late: the command line is built without aiohttp and asyncssh."""
    if name == "Sandbox":
        from agent.sandbox.sandbox import Sandbox

        return Sandbox
    if name in {"Fault", "FaultError"}:
        from agent.sandbox import faults

        return getattr(faults, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
