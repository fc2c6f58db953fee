"""paramiko's SFTP client, as tolerant of a server's language as the agent must be.

Imports paramiko, so it is imported itself only once somebody connects.
"""

from __future__ import annotations

from paramiko import Message, SFTPClient


class TolerantClient(SFTPClient):
    """A refusal counts by its code, in whatever encoding the server tells it.

    SFTP version 3 wants UTF-8 (draft-ietf-secsh-filexfer-02, section 7), but a server may talk in
    its system's own encoding, and paramiko would give up on the text before it looks at the code:
    even "no such file" is an ordinary answer here.
    """

    def _convert_status(self, msg: Message) -> None:
        told = Message()
        told.add_int(msg.get_int())
        told.add_string(_decoded(msg.get_string()))
        told.rewind()
        super()._convert_status(told)  # type: ignore[misc]


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("cp1252", errors="replace")
