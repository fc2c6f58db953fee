"""The control port: every call, and whom it refuses."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from agent.sandbox import Sandbox


@pytest.fixture
def control(sandbox: Sandbox) -> Any:
    """Call the control port: `status, body = await control(method, path, json?)`."""

    async def call(
        method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"{sandbox.control_url}{path}", json=body, headers=headers
            ) as response,
        ):
            return response.status, await response.json()

    return call


async def test_overview_tells_all_one_needs_to_connect(control: Any, sandbox: Sandbox) -> None:
    status, overview = await control("GET", "/")

    assert status == 200
    assert overview["engageUrl"] == sandbox.engage_url
    assert overview["hostKeyLine"] == sandbox.host_key_line
    assert overview["hostKeyLine"].startswith(f"[127.0.0.1]:{sandbox.sftp_port} ssh-ed25519 ")
    assert overview["hostKeyFingerprint"].startswith("SHA256:")
    assert overview["down"] is False
    assert "POST /down" in overview["calls"]


async def test_line_goes_down_and_up(control: Any, engage: Any) -> None:
    assert await control("POST", "/down") == (200, {"down": True})
    with pytest.raises(aiohttp.ClientConnectorError):
        await engage("GET", "/api/v2/contacts/count")

    assert await control("POST", "/up") == (200, {"down": False})
    assert await engage("GET", "/api/v2/contacts/count") == (200, 0)


async def test_fault_is_set_listed_and_cleared(control: Any) -> None:
    status, fault = await control("POST", "/faults", {"kind": "throttle", "times": 3})
    _, listed = await control("GET", "/faults")
    _, cleared = await control("DELETE", "/faults")

    assert (status, fault["target"], fault["times"]) == (200, "engage", 3)
    assert listed["faults"] == [fault]
    assert listed["kinds"]["importer"]["skips"]["parameters"] == {"keys": [], "every": 0}
    assert cleared == {"cleared": 1}


async def test_single_faults_are_cleared_by_id_or_kind(control: Any, sandbox: Sandbox) -> None:
    fault = sandbox.set_fault("hang")
    sandbox.set_fault("slow")
    sandbox.set_fault("cut")

    assert (await control("DELETE", f"/faults?id={fault.id}"))[1] == {"cleared": 1}
    assert (await control("DELETE", "/faults?kind=slow"))[1] == {"cleared": 1}
    assert (await control("DELETE", "/faults?target=sftp"))[1] == {"cleared": 1}
    assert (await control("DELETE", "/faults?id=x"))[0] == 400


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"kind": "hagn"}, "Did you mean 'hang'?"),
        ({"kind": "slow", "delay": 1}, "Did you mean 'delay_s'?"),
        ({"kind": "hang", "target": "engag"}, "Did you mean 'engage'?"),
        ({}, "Give the fault's kind"),
        ([], "must be a JSON object"),
        (None, "must be JSON"),
    ],
)
async def test_wrong_fault_is_answered_with_what_is_allowed(
    control: Any, body: Any, sentence: str
) -> None:
    status, answer = await control("POST", "/faults", body)

    assert status == 400
    assert sentence in answer["error"]


async def test_contacts_counts_and_log_can_be_read(
    control: Any, engage: Any, sandbox: Sandbox
) -> None:
    contact = await engage.create(email="vera@example.test")
    sandbox.import_path.joinpath("1_contacts.xml").write_bytes(b"<")

    assert await control("POST", "/import") == (200, {"files": 1})
    assert (await control("GET", "/contacts"))[1] == [contact]
    assert (await control("GET", "/counts"))[1]["creates"] == 1
    _, log = await control("GET", "/log")
    assert [(each["method"], each["status"]) for each in log["requests"]] == [("POST", 201)]
    assert log["imports"][0]["outcome"] == "skipped"
    assert log["sftp"] == []
    assert "vera" not in str(log)


async def test_contact_is_erased_by_id(control: Any, sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(email="vera@example.test")

    assert (await control("DELETE", f"/contacts?id={contact_id}"))[0] == 200
    assert (await control("DELETE", f"/contacts?id={contact_id}"))[0] == 404
    assert sandbox.contacts() == []


async def test_reset_forgets_everything(control: Any, engage: Any, sandbox: Sandbox) -> None:
    await engage.create(email="vera@example.test")
    sandbox.set_fault("hang")
    sandbox.down()

    await control("POST", "/reset")

    assert sandbox.contacts() == []
    assert sandbox.faults() == []
    assert sandbox.counts()["requests"] == 0
    contact = await engage.create(email="vera@example.test")
    assert contact["attributes"]["memberNumber"] == "1000001"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://page.example.test"}, 403),
        ({"Host": "page.example.test"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
    ],
)
async def test_web_pages_are_refused(
    control: Any, sandbox: Sandbox, headers: dict[str, str], status: int
) -> None:
    answer = await control("POST", "/down", headers=headers)

    assert answer[0] == status
    assert not sandbox.is_down


async def test_unknown_calls_are_answered_with_those_there_are(control: Any) -> None:
    unknown = await control("GET", "/fault")
    wrong_method = await control("GET", "/down")

    assert unknown[0] == 404
    assert "Did you mean '/faults'?" in unknown[1]["error"]
    assert wrong_method == (405, {"error": "/down takes POST."})


async def test_member_export_is_written(control: Any, sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")

    status, answer = await control("POST", "/export", {"full": True, "withIds": False})
    refused, why = await control("POST", "/export", {"perFile": 0})

    assert status == 200
    assert [(sandbox.export_path / name).is_file() for name in answer["files"]] == [True]
    assert (refused, why) == (400, {"error": "perFile must be a whole number above 0."})
