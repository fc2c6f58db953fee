"""A till's life with the package: installed, broken in every way, upgraded, removed.

In a Debian 12 that was really booted, without a network. What was acknowledged must come through.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK  # type: ignore[attr-defined]
from machine import Lab, Till, repacked, until

pytestmark = pytest.mark.system

# As a later version's may be: new structure, and every row of the old one touched.
_MIGRATION = """
CREATE TABLE of_a_later_version (seq INTEGER PRIMARY KEY) STRICT;
INSERT INTO of_a_later_version SELECT seq FROM changes;
"""


def all_in_engage(till: Till, lab: Lab, count: int) -> bool:
    return (
        lab.contacts() == count
        and sum(till.counts()[state] for state in ("delivered", "confirmed", "imported")) == count
    )


def test_installs_without_a_network_and_starts_when_it_is_set_up(
    bare: Till, lab: Lab, package: Path
) -> None:
    done = bare.install(package)

    assert done.returncode == 0, done.stderr
    assert "till-agent setup" in done.stdout
    assert bare.property("ActiveState") == "inactive"
    assert bare.run("systemctl", "is-enabled", "till-agent", check=False).returncode != 0

    bare.set_up(*QUICK)

    assert bare.property("ActiveState") == "active"
    assert bare.run("systemctl", "is-enabled", "till-agent").returncode == 0
    bare.sign_up("vera@example.test")
    until(lambda: all_in_engage(bare, lab, 1), "a contact in Engage")
    until(lambda: "Engage" in bare.property("StatusText"), "systemd knowing how it goes")
    # Root runs commands; what they write must stay readable for the service.
    bare.run("till-agent", "token", "new", "pos-2")
    bare.run("till-agent", "check")
    assert bare.answers()
    log = bare.run("journalctl", "-u", "till-agent", "--no-pager").stdout
    assert "change_tried" in log
    assert "vera" not in log


def test_killed_it_is_back_within_seconds_with_nothing_lost(till: Till, lab: Lab) -> None:
    lab.control("POST", "/down")
    till.sign_up_many(50)
    first = int(till.property("MainPID"))

    till.run("systemctl", "kill", "--signal=KILL", "till-agent")

    until(lambda: till.property("MainPID") not in ("0", str(first)), "a new process", 30)
    until(till.answers, "an agent that answers", 30)
    assert sum(till.counts().values()) == 50
    lab.control("POST", "/up")
    until(lambda: all_in_engage(till, lab, 50), "all of them in Engage")


def test_one_that_hangs_is_restarted_by_the_watchdog(till: Till) -> None:
    folder = till.folder / "etc/systemd/system/till-agent.service.d"
    folder.mkdir(parents=True)
    (folder / "quick.conf").write_text("[Service]\nWatchdogSec=4\n")
    till.run("systemctl", "daemon-reload")
    till.run("systemctl", "restart", "till-agent")
    till.sign_up("vera@example.test")
    first = till.property("MainPID")

    till.run("systemctl", "kill", "--signal=STOP", "till-agent")

    until(lambda: till.property("MainPID") not in ("0", first), "a restart by the watchdog")
    until(till.answers, "an agent that answers")
    assert sum(till.counts().values()) == 1
    assert till.property("NRestarts") == "1"


def test_after_a_power_cut_it_starts_with_the_machine_and_delivers(till: Till, lab: Lab) -> None:
    lab.control("POST", "/down")
    till.sign_up_many(50)

    till.power_cut()
    till.boot()  # and nobody logs in

    until(till.answers, "an agent that answers")
    lab.control("POST", "/up")
    until(lambda: all_in_engage(till, lab, 50), "all of them in Engage")


def test_upgrade_with_ten_thousand_waiting_keeps_migrates_and_delivers(
    till: Till, lab: Lab, package: Path, tmp_path: Path
) -> None:
    later = repacked(package, tmp_path, "99.0.0", _MIGRATION)
    lab.control("POST", "/down")
    till.sign_up_many(10_000)

    done = till.install(later)

    assert done.returncode == 0, done.stderr
    assert till.run("till-agent", "--version").stdout.split()[1] == "99.0.0"
    until(till.answers, "an agent that answers")
    assert sum(till.counts().values()) == 10_000
    copies = [each.name for each in (till.folder / "var/lib/till-agent").glob("journal.db.*")]
    assert any("backup" in name or "before" in name for name in copies), copies

    refused = till.install(package)

    assert refused.returncode != 0
    assert "99.0.0 is installed" in refused.stderr
    until(till.answers, "an agent that goes on as if nothing had been")
    assert sum(till.counts().values()) == 10_000

    forced = till.install(package, TILL_AGENT_DOWNGRADE="yes")
    until(lambda: till.property("NRestarts") != "0", "an older program that cannot start")
    assert "newer till-agent" in str(till.run("journalctl", "-u", "till-agent").stdout), forced
    till.install(later)
    until(till.answers, "an agent that answers again")

    lab.control("POST", "/up")
    until(lambda: all_in_engage(till, lab, 10_000), "all of them in Engage", 180)


def test_removed_it_keeps_what_waits_and_a_purge_is_refused(
    till: Till, lab: Lab, package: Path
) -> None:
    lab.control("POST", "/down")
    till.sign_up_many(3)

    removed = till.run("dpkg", "-r", "till-agent")

    assert "3 CHANGES ARE NOT IN ENGAGE YET" in removed.stderr
    assert (till.folder / "var/lib/till-agent/journal.db").exists()

    purged = till.run("dpkg", "-P", "till-agent", check=False)

    assert purged.returncode != 0
    assert "3 changes" in purged.stderr
    assert (till.folder / "var/lib/till-agent/journal.db").exists()

    again: Any = till.install(package)

    assert again.returncode == 0, again.stderr
    until(till.answers, "an agent on the data that was kept")
    lab.control("POST", "/up")
    until(lambda: all_in_engage(till, lab, 3), "all of them in Engage")

    till.run("dpkg", "-P", "till-agent")

    assert not (till.folder / "var/lib/till-agent").exists()
    assert not (till.folder / "etc/till-agent").exists()


def test_a_forced_purge_gives_up_what_waits(till: Till, lab: Lab) -> None:
    lab.control("POST", "/down")
    till.sign_up_many(3)

    till.run("dpkg", "-P", "till-agent", TILL_AGENT_PURGE="waiting")

    assert not (till.folder / "var/lib/till-agent").exists()


def test_reinstalling_the_same_version_keeps_all(till: Till, lab: Lab, package: Path) -> None:
    lab.control("POST", "/down")
    till.sign_up_many(3)
    before = os.stat(till.folder / "etc/till-agent/agent.toml").st_mtime_ns

    done = till.install(package)

    assert done.returncode == 0, done.stderr
    until(till.answers, "an agent that answers")
    assert sum(till.counts().values()) == 3
    assert os.stat(till.folder / "etc/till-agent/agent.toml").st_mtime_ns == before


def test_a_credential_instead_of_a_file(till: Till, lab: Lab) -> None:
    secret = till.folder / "etc/till-agent/engage_api_key"
    secret.rename(till.folder / "srv/engage_api_key")
    os.chown(till.folder / "srv/engage_api_key", 0, 0)
    settings = till.folder / "etc/till-agent/agent.toml"
    text = settings.read_text().replace('"/etc/till-agent/engage_api_key"', '"engage_api_key"')
    settings.write_text(text)
    folder = till.folder / "etc/systemd/system/till-agent.service.d"
    folder.mkdir(parents=True)
    drop_in = "[Service]\nLoadCredential=engage_api_key:/srv/engage_api_key\n"
    (folder / "secrets.conf").write_text(drop_in)

    till.run("systemctl", "daemon-reload")
    till.run("systemctl", "restart", "till-agent")

    till.sign_up("vera@example.test")
    until(lambda: all_in_engage(till, lab, 1), "a contact in Engage")
