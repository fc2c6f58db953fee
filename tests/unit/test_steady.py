"""A log whose reader is slow, gone or full: nothing fails, nothing waits, and the loss is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from agent.steady import SteadyStream


@pytest.fixture
def pipe() -> Iterator[tuple[int, SteadyStream]]:
    """Give the end to read from, and a stream that writes to the other."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as file:
        yield reading, SteadyStream(file)
    os.close(reading)


def read(reading: int) -> str:
    parts = []
    try:
        while part := os.read(reading, 65536):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts).decode()


def test_what_can_be_written_is_written_at_once(pipe: tuple[int, SteadyStream]) -> None:
    reading, stream = pipe

    assert stream.write("en rad på svenska\n") == 18

    assert read(reading) == "en rad på svenska\n"


def test_a_reader_who_takes_nothing_holds_nothing_up_and_the_loss_is_told(
    pipe: tuple[int, SteadyStream],
) -> None:
    reading, stream = pipe
    line = "x" * 99 + "\n"
    for _ in range(2000):  # more than any pipe holds
        stream.write(line)
    taken = read(reading).count(line)

    stream.write("again\n")

    told, again = read(reading).splitlines()
    assert json.loads(told) == {"event": "lines_lost", "lines": 2000 - taken}
    assert again == "again"


def test_a_line_that_was_torn_does_not_spoil_the_next_one(pipe: tuple[int, SteadyStream]) -> None:
    reading, stream = pipe
    stream.write("x" * 10_000_000 + "\n")
    read(reading)

    stream.write("again\n")

    torn, told, again = read(reading).split("\n")[:3]
    assert torn == ""
    assert json.loads(told)["lines"] == 1
    assert again == "again"


def test_a_reader_who_is_gone_or_a_full_disk_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone, open("/dev/full", "w", encoding="utf-8") as full:
        for stream in (SteadyStream(gone), SteadyStream(full)):
            assert stream.write("nobody reads this\n") == 18
            stream.flush()
