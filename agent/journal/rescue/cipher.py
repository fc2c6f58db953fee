"""The pages of an encrypted journal, decrypted one by one: SQLCipher gives all up at the first bad
one.

SQLCipher's format 4, as its maker describes it ("SQLCipher Design", zetetic.net): each page ends
with an IV and a checksum that is keyed, so that what was changed on the disk is known for certain.
Reading only, and in memory only.
"""

from __future__ import annotations

import hashlib
import hmac
import re

PAGE = 4096
RESERVED = 80  # IV and checksum
MAGIC = b"SQLite format 3\0"

_SALT, _IV, _CHECK = 16, 16, 64
_ROUNDS, _FAST_ROUNDS = 256_000, 2
_SALT_MASK = 0x3A
_RAW_KEY = re.compile(r"x'([0-9a-f]{64})([0-9a-f]{32})?'", re.IGNORECASE)


def decrypted(content: bytes | bytearray, key: str) -> tuple[bytearray, set[int]]:
    """Give the pages in the clear, and the numbers of those that are damaged; they are zeros.

    `key` as it is handed to SQLCipher: a passphrase, or x'…' of 64 or 96 hexadecimal digits.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    secret, salt = _keys(key, bytes(content[:_SALT]))
    checks = hashlib.pbkdf2_hmac(
        "sha512", secret, bytes(each ^ _SALT_MASK for each in salt), _FAST_ROUNDS, len(secret)
    )
    clear, damaged = bytearray(len(content)), set()
    end = PAGE - RESERVED
    for number in range(1, len(content) // PAGE + 1):
        start = (number - 1) * PAGE
        page = bytes(content[start : start + PAGE])
        first = _SALT if number == 1 else 0
        iv, check = page[end : end + _IV], page[end + _IV : end + _IV + _CHECK]
        signed = page[first : end + _IV] + number.to_bytes(4, "little")
        if not hmac.compare_digest(hmac.digest(checks, signed, "sha512"), check):
            damaged.add(number)
            continue
        aes = Cipher(algorithms.AES(secret), modes.CBC(iv)).decryptor()
        clear[start + first : start + end] = aes.update(page[first:end]) + aes.finalize()
        if number == 1:
            clear[:_SALT] = MAGIC
    return clear, damaged


def _keys(key: str, salt: bytes) -> tuple[bytes, bytes]:
    if raw := _RAW_KEY.fullmatch(key):
        own = bytes.fromhex(raw[2]) if raw[2] else salt
        return bytes.fromhex(raw[1]), own
    return hashlib.pbkdf2_hmac("sha512", key.encode(), salt, _ROUNDS, 32), salt
