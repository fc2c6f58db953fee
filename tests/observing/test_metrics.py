"""What Prometheus sees, and that document, dashboard and alarms speak of nothing else."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from world import World, eventually

from agent.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging" / "prometheus" / "till-agent.rules.yml"
RULES_TEST = ROOT / "packaging" / "prometheus" / "till-agent.rules.test.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "till-agent.json"

Start = Callable[..., Awaitable[World]]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def text_of_metrics(world: World) -> str:
    async with world.session.get(f"{world.pos.url}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def samples(world: World) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(await text_of_metrics(world))
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[(f"till_agent_{name}", tuple(sorted(labels.items())))]


# --- what is exposed --------------------------------------------------------------------------


async def test_a_sign_up_is_counted_once_on_its_whole_way(start: Start) -> None:
    world = await start()

    await world.pos.until(await world.pos.create(), "delivered")

    found = await samples(world)
    assert value(found, "changes_taken_total", kind="create") == 1
    assert value(found, "attempts_total", route="api", outcome="delivered") == 1
    assert value(found, "answer_seconds_count", call="write", status="2xx") == 1
    assert value(found, "engage_call_seconds_count", answer="ok") == 2
    assert value(found, "journal_commit_seconds_count") > 0
    assert value(found, "info", version="0.1.0", store="0042", till="1") == 1


async def test_repeat_of_a_request_is_no_second_change(start: Start) -> None:
    world = await start()

    await world.pos.create()
    await world.pos.create()

    assert value(await samples(world), "changes_taken_total", kind="create") == 1


async def test_outage_is_seen_in_line_backlog_and_calls(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 600})
    world.sandbox.down()
    change_id = await world.pos.create()
    await world.pos.tried(change_id, 2)
    await world.pos.until_link("offline")

    found = await eventually_showing(world, "unsent_changes", 1)

    assert value(found, "line_state", line="engage", state="offline") == 1
    assert value(found, "line_state", line="engage", state="online") == 0
    assert value(found, "changes", state="waiting") == 1
    assert value(found, "can_accept") == 1
    assert value(found, "engage_call_seconds_count", answer="unreachable") >= 2


async def eventually_showing(world: World, name: str, expected: float) -> Samples:
    """Wait for a gauge: all who look within half a second see the same picture."""

    async def shown() -> Samples | None:
        found = await samples(world)
        return found if value(found, name) == expected else None

    return dict(await eventually(shown, f"{name} {expected}"))


async def test_paused_route_is_seen_and_needs_a_person(start: Start) -> None:
    world = await start()

    await world.pos.call("POST", "/agent/v1/routes/api/pause")

    found = await eventually_showing(world, "needs_person", 1)
    assert value(found, "route_state", route="api", state="paused") == 1


async def test_full_disk_is_seen_as_not_accepting(start: Start) -> None:
    world = await start(journal={"min_free_mb": 100_000_000})

    found = await samples(world)

    assert value(found, "can_accept") == 0
    assert value(found, "journal_free_bytes") > 0


async def test_what_nobody_knows_is_not_a_number_and_no_count_of_zero(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await start()
    assert world.agent is not None
    await world.agent.journal.database._disconnect()  # as after an I/O error
    monkeypatch.setattr(world.agent.journal.database, "_heal", _stays_broken)

    async def unknown() -> Samples | None:
        found = await samples(world)
        return found if math.isnan(value(found, "unsent_changes")) else None

    found = dict(await eventually(unknown, "an unknown backlog"))
    assert math.isnan(value(found, "oldest_waiting_seconds"))
    assert not any(name == "till_agent_changes" for name, _ in found)


async def _stays_broken() -> None:
    from agent.errors import JournalUnavailable

    raise JournalUnavailable


async def test_metrics_need_no_token_and_the_right_host(start: Start) -> None:
    world = await start()

    async with world.session.get(
        f"{world.pos.url}/metrics", headers={"Host": "shop.example.test"}
    ) as answer:
        assert answer.status == 421


async def test_agents_of_one_process_do_not_count_each_others(start: Start) -> None:
    world = await start()
    await world.pos.until(await world.pos.create(), "delivered")

    assert "create" not in Metrics().text().decode()


# --- the document, the dashboard, the alarms ------------------------------------------------------


@pytest.fixture
def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Give type and labels of each metric by its name, as docs/metrics.md has them."""
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(till_agent_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def test_document_and_agent_name_the_same_metrics(
    start: Start, documented: dict[str, tuple[str, frozenset[str]]]
) -> None:
    world = await start()
    await world.pos.until(await world.pos.create(), "delivered")
    await world.pos.get("/api/v3/contacts/id?email=vera@example.test")

    text = await text_of_metrics(world)

    exposed = {
        name: (kind, labels_in(text, name))
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    }
    assert exposed == documented


def labels_in(text: str, name: str) -> frozenset[str]:
    found = re.findall(rf"^{name}(?:_bucket|_count|_sum)?\{{(.*)\}} ", text, re.MULTILINE)
    return frozenset(
        label for each in found for label in re.findall(r"(\w+)=", each) if label != "le"
    )


def names_in(expression: str) -> Iterator[str]:
    for name in re.findall(r"\b(?:till_agent_\w+|up)\b", expression):
        yield re.sub(r"_(?:bucket|count|sum)$", "", name)


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_dashboard_and_alarms_use_only_metrics_that_exist(
    documented: dict[str, tuple[str, frozenset[str]]],
) -> None:
    rules = re.findall(r"\b(?:till_agent_\w+|up\{)", RULES.read_text("utf-8"))
    used = {name for each in dashboard_expressions() for name in names_in(each)}
    used |= {name for each in rules for name in names_in(each)}

    assert used - set(documented) - {"up"} == set()
    assert len(dashboard_expressions()) > 10


def test_dashboard_shows_every_metric(
    documented: dict[str, tuple[str, frozenset[str]]],
) -> None:
    used = {name for each in dashboard_expressions() for name in names_in(each)}

    assert set(documented) - used == set()


def test_document_names_the_alarms_that_there_are() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")

    alarms = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))
    assert len(alarms) == 3
    assert re.findall(r"^\| `(Till\w+)` \|", text, re.MULTILINE) == alarms


# --- Prometheus's own word ----------------------------------------------------------------------


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: packaging/system-tools.sh takes it out of its package")
    return program


def run(*command: str, given: str = "", cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.system
def test_alarms_are_rules_that_prometheus_takes_and_ring_when_they_should(promtool: str) -> None:
    assert "3 rules found" in run(promtool, "check", "rules", str(RULES))
    assert "SUCCESS" in run(promtool, "test", "rules", RULES_TEST.name, cwd=RULES_TEST.parent)


@pytest.mark.system
async def test_prometheus_reads_the_metrics_and_finds_nothing_to_complain_of(
    start: Start, promtool: str
) -> None:
    world = await start()
    await world.pos.until(await world.pos.create(), "delivered")

    assert run(promtool, "check", "metrics", given=await text_of_metrics(world)) == ""


@pytest.mark.system
def test_dashboards_expressions_are_ones_that_prometheus_takes(
    promtool: str, tmp_path: Path
) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(dashboard_expressions())
    ]
    # JSON is YAML, too.
    path = tmp_path / "dashboard.rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", str(path))
