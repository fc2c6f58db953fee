"""A sealed batch becomes its file: whole or not at all, and the same bytes whenever it is made."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from journal_helpers import GUID
from sealing import SealingTill

from agent.change import State
from agent.delivery.batch import spool, writing
from agent.delivery.batch.schema import NotOurDocument

STYLESHEET = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template></xsl:stylesheet>"""


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[SealingTill]:
    async with SealingTill(tmp_path / "till") as opened:
        yield opened


async def some_customers(till: SealingTill) -> None:
    for _ in range(3):
        create = await till.book.create()
        await till.book.update(create.contact.ref)
    await till.book.update(GUID)


class Kills:
    """Copies the till at every step of writing: what a kill at this moment would leave."""

    def __init__(self, till: SealingTill, folder: Path) -> None:
        self._till = till
        self._folder = folder
        self.left: dict[str, Path] = {}

    def here(self, step: str) -> None:
        name = f"{len(self.left):02d} {step}"
        self.left[name] = self._folder / name
        shutil.copytree(
            self._till.folder, self.left[name], ignore=shutil.ignore_patterns("*.lock", "*-shm")
        )

    def around(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **more: Any) -> Any:
            self.here(f"before {step}")
            result = work(*args, **more)
            self.here(f"after {step}")
            return result

        return done

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", self.around("syncing", os.fsync))
        monkeypatch.setattr(os, "replace", self.around("naming", os.replace))
        monkeypatch.setattr(spool, "_digest", self.around("describing", spool._digest))
        elements, write = writing.Writer._elements, self._till.book.journal.write

        def one_by_one(*args: Any) -> Any:
            for element in elements(*args):
                self.here("writing a contact")
                yield element

        async def write_then_die(work: Any) -> Any:
            answer = await write(work)
            self.here("storing")
            return answer

        monkeypatch.setattr(writing.Writer, "_elements", one_by_one)
        monkeypatch.setattr(self._till.book.journal, "write", write_then_die)


@pytest.mark.parametrize("stylesheet", [None, STYLESHEET])
async def test_killed_at_any_moment_of_writing_the_file_is_finished_byte_for_byte(
    stylesheet: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {}
    if stylesheet is not None:
        (tmp_path / "form.xslt").write_text(stylesheet)
        settings = {"xslt": str(tmp_path / "form.xslt")}
    async with SealingTill(tmp_path / "till", settings) as till:
        await some_customers(till)
        await till.seal_only()
        kills = Kills(till, tmp_path)
        with monkeypatch.context() as patch:
            kills.patch(patch)
            await till.turn()
        expected = till.files()
    assert len(expected) == 2
    assert {name[3:] for name in kills.left} >= {
        "writing a contact",
        "before syncing",
        "after syncing",
        "after describing",
        "storing",
        "before naming",
        "after naming",
    }

    for step, folder in kills.left.items():
        async with SealingTill(folder) as again:
            again.clock.pass_s(86_400)
            await again.turn()

            assert again.files() == expected, step
            for batch in await again.batches():
                content = expected[batch.name]
                manifest = (hashlib.sha256(content).hexdigest(), len(content), "written")
                assert (batch.sha256, batch.bytes, batch.state) == manifest, step


async def test_a_file_is_the_same_byte_for_byte_although_the_contact_key_was_changed(
    till: SealingTill, tmp_path: Path
) -> None:
    signed_up = await till.book.create("vera@example.test")
    await till.sealer.seal_now()
    await till.upload()
    await till.take_in()
    await till.book.update(signed_up.contact.ref, {"city": "Lund"})
    await till.seal_only()
    later = tmp_path / "later"
    shutil.copytree(till.folder, later, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
    await till.turn()
    settings = (later / "agent.toml").read_text()
    (later / "agent.toml").write_text(
        settings.replace("[engage]", '[engage]\ncontact_key = "memberNumber"')
    )

    async with SealingTill(later) as again:
        await again.turn()
        rebuilt = again.files()

    (content,) = rebuilt.values()
    assert b"<email>vera@example.test</email>" in content
    assert rebuilt == till.files()


async def test_a_name_that_a_power_cut_took_back_is_given_again(
    till: SealingTill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_customers(till)
    await till.seal_only()
    kills = Kills(till, tmp_path)
    with monkeypatch.context() as patch:
        kills.patch(patch)
        await till.turn()
    named = next(folder for step, folder in kills.left.items() if "after naming" in step)
    (path,) = (named / "spool").glob("*.xml")
    path.rename(path.with_name(f".{path.name}.tmp"))  # the folder was not synced yet

    async with SealingTill(named) as again:
        await again.turn()

        assert again.files() == till.files()


async def test_a_file_that_went_up_before_the_power_failed_is_removed_and_a_foreign_one_left(
    tmp_path: Path,
) -> None:
    async with SealingTill(tmp_path / "till") as till:
        await some_customers(till)
        await till.sealer.seal_now()
        shipped = till.files()
        await till.upload()
    for name, content in {**shipped, "somebodys.xml": b"<their/>"}.items():
        till.spool.path(name).write_bytes(content)  # the folder was not synced yet

    async with SealingTill(tmp_path / "till") as again:
        await again.turn()

        assert again.files() == {"somebodys.xml": b"<their/>"}


async def test_a_file_that_could_not_be_removed_is_removed_as_soon_as_that_works(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_customers(till)
    await till.sealer.seal_now()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails_as_on_a_read_only_disk)
        for batch in await till.in_state("written"):
            await till.note_uploaded(batch)
            await till.sealer.remove_file(batch.name)
        assert len(till.files()) == 2
        await till.turn(after_s=10)
        assert "read-only" in (till.sealer.problem or "")

    await till.turn(after_s=10)

    assert till.files() == {}
    assert till.sealer.problem is None


async def test_what_turns_up_later_is_removed_now_and_then_if_it_is_ours(
    till: SealingTill,
) -> None:
    await some_customers(till)
    await till.sealer.seal_now()
    shipped = till.files()
    await till.upload()
    await some_customers(till)
    await till.sealer.seal_now()
    still_to_go = {name: content for name, content in till.files().items() if name not in shipped}
    theirs = {"somebodys.xml": b"<their/>", ".somebodys.tmp": b"<their/>"}
    for name, content in {**shipped, **theirs}.items():
        (till.spool.directory / name).write_bytes(content)

    await till.turn(after_s=3600)

    assert till.files() == {**still_to_go, **theirs}


def fails_as_on_a_read_only_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def test_a_file_that_comes_out_wrong_gets_no_name_and_holds_up_no_other(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_customers(till)
    validate, looked_at = writing.validate, []

    def refuse_the_first(path: Path) -> None:
        looked_at.append(path.name)
        if len(looked_at) == 1:
            raise NotOurDocument("Line 4: not in the agent's form.")
        validate(path)

    monkeypatch.setattr(writing, "validate", refuse_the_first)

    assert await till.sealer.seal_now() == 2

    assert [batch.state for batch in await till.batches()] == ["sealed", "written"]
    assert len(till.files()) == 1
    assert "Line 4" in (till.sealer.problem or "")
    assert [(batch.attempts, batch.error) for batch in await till.batches()] == [
        (1, till.sealer.problem),
        (0, None),
    ]
    await till.turn(after_s=10)
    assert [batch.state for batch in await till.batches()] == ["written", "written"]
    assert [batch.error for batch in await till.batches()] == [None, None]
    assert till.sealer.problem is None


async def test_a_spool_that_cannot_be_used_keeps_nothing_from_the_api(till: SealingTill) -> None:
    till.spool.directory.touch()  # a file in the place of the folder
    till.go_offline()
    change = await till.book.create()
    await till.turn(after_s=3600)
    await till.turn()
    assert await till.states(change) == [State.BATCHED]
    assert "this is not a folder" in (till.sealer.problem or "")

    till.come_back()
    await till.turn()

    assert not till.sealer.decides  # or else the API route would wait for it for ever


async def test_a_document_on_which_the_stylesheet_fails_as_a_whole_waits_and_others_go(
    tmp_path: Path,
) -> None:
    stylesheet = tmp_path / "form.xslt"
    fails_on_two = STYLESHEET.replace(
        "<xsl:template",
        "<xsl:template match=\"*[count(*[local-name() = 'member']) = 2]\">"
        '<xsl:message terminate="yes">too many</xsl:message></xsl:template><xsl:template',
    )
    stylesheet.write_text(fails_on_two)
    async with SealingTill(tmp_path / "till", {"xslt": str(stylesheet)}) as till:
        made = [await till.book.create() for _ in range(2)]
        alone = await till.book.update(GUID)

        await till.sealer.seal_now()

        assert await till.states(*made, alone) == [State.BATCHED] * 3
        assert len(till.files()) == 1
        assert "fails on the batch" in (till.sealer.problem or "")
        stylesheet.write_text(STYLESHEET)
        await till.turn(after_s=10)
        assert len(till.files()) == 2
        assert till.sealer.problem is None
