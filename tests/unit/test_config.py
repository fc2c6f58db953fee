"""What agent.toml becomes, what around it is refused, and that the generated texts are current."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from certificates import write_certificate

from agent import config
from agent.config import Config, Mount
from agent.config import __main__ as generator
from agent.config.showing import toml_text
from agent.errors import ConfigError
from agent.secrets import Credential

ROOT = Path(__file__).parents[2]
VALID = (ROOT / "tests/bad_configs/00-valid.toml").read_text(encoding="utf-8")
BULK = VALID.split("[sftp]")[0] + '[fallback]\ntransport = "bulk"\n'

Write = Callable[..., Config]


@pytest.fixture
def loaded(tmp_path: Path) -> Write:
    """Load this text from tmp_path/agent.toml."""

    def load(text: str = VALID, extra: str = "") -> Config:
        path = tmp_path / "agent.toml"
        path.write_text(text + extra, encoding="utf-8")
        return config.load(path)

    return load


@pytest.fixture
def ready(loaded: Write, tmp_path: Path) -> Config:
    """Everything that the settings name is in order."""
    for name in ("engage_api_key", "sftp_password"):
        (tmp_path / name).write_text("s3cret\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "known_hosts").write_text("ftp.voyado.com ssh-ed25519 AAAA\n")
    (tmp_path / "tokens").write_text(f"till-1:{'0' * 64}\n")
    (tmp_path / "tokens").chmod(0o600)
    return loaded(
        extra='[server]\ntokens_file = "tokens"\n[journal]\npath = "data/journal.db"\n'
        '[fallback]\nspool = "data/spool"\n'
    )


def refusal(load: Write, extra: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(extra=extra)
    return str(caught.value)


def with_table(ready: Config, table: str, **values: Any) -> Config:
    changed = dataclasses.replace(getattr(ready, table), **values)
    return dataclasses.replace(ready, **{table: changed})


def texts(problems: tuple[Any, ...]) -> str:
    return "\n".join(map(str, problems))


# --- values -----------------------------------------------------------------------------------


def test_what_is_left_out_has_its_default(loaded: Write) -> None:
    got = loaded()

    assert got.server.port == 8717
    assert got.server.wait_s == 3.0
    assert got.retry.waits_s == (10.0, 30.0, 60.0, 300.0)
    assert got.engage.create_timeout_s == 11.0
    assert got.journal.path == Path("/var/lib/till-agent/journal.db")


@pytest.mark.parametrize(
    ("extra", "table", "key", "value"),
    [
        ("[server]\nport = 0\n", "server", "port", 0),  # any free port
        ("[server]\nwait_s = 9\n", "server", "wait_s", 9.0),  # a whole number for a number
        ("[server]\nwait_s = 0\n", "server", "wait_s", 0.0),
        ('[server]\nhost = "::1"\n', "server", "host", "::1"),
        ('[server]\nallowed_hosts = ["till-12"]\n', "server", "allowed_hosts", ("till-12",)),
        ("[retry]\nwaits_s = [0.01, 1]\n", "retry", "waits_s", (0.01, 1.0)),
        ("[fallback]\nmax_contacts = 20000\n", "fallback", "max_contacts", 20_000),
        ("[fallback]\nseal_after_s = 0.05\n", "fallback", "seal_after_s", 0.05),
        (
            '[fallback]\nfile_name = "{timestamp}{till}{sequence}_contacts.xml"\n',
            "fallback",
            "file_name",
            "{timestamp}{till}{sequence}_contacts.xml",
        ),
        (
            '[engage.required]\nMember = ["firstName", "email"]\n',
            "engage",
            "required",
            {"Member": ("firstName", "email")},
        ),
        ('[log]\nlevel = "debug"\n', "log", "level", "debug"),
    ],
)
def test_value_is_taken(loaded: Write, extra: str, table: str, key: str, value: Any) -> None:
    got = getattr(getattr(loaded(extra=extra), table), key)

    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://acme.voyado.com/", "https://acme.voyado.com"),
        ("https://gateway.example/engage/", "https://gateway.example/engage"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://acme.voyado.com:8443", "https://acme.voyado.com:8443"),
    ],
)
def test_base_url_is_taken_and_loses_the_slash_at_its_end(
    loaded: Write, written: str, kept: str
) -> None:
    assert loaded(VALID.replace("https://acme.voyado.com", written)).engage.base_url == kept


@pytest.mark.parametrize(
    "written",
    [
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "https://user@acme.voyado.com",
        "https://user:1/hunter2@acme.voyado.com",
        "https://acme.voyado.com#hunter2",
        "https://acme.voyado.com/API/V3",
        "https://acme.voyado.com:port",
        "https://",
        "file:///etc/passwd",
        "https://acme voyado.com",
    ],
)
def test_base_url_is_refused_without_repeating_what_may_be_secret(
    loaded: Write, written: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(VALID.replace("https://acme.voyado.com", written))

    assert [problem.place for problem in caught.value.problems] == ["[engage] base_url"]
    assert "hunter2" not in str(caught.value)


def test_relative_path_begins_where_the_file_lies(loaded: Write, tmp_path: Path) -> None:
    got = loaded(extra='[journal]\npath = "data/../journal.db"\n')

    assert got.journal.path == tmp_path / "journal.db"
    assert got.sftp.known_hosts_file == tmp_path / "known_hosts"


def test_bare_secret_name_is_a_credential_and_one_with_a_slash_a_path(
    loaded: Write, tmp_path: Path
) -> None:
    got = loaded(extra='[journal]\nkey_file = "./journal_key"\n')

    assert got.engage.api_key_file == Credential("engage_api_key", tmp_path)
    assert got.sftp.password_file == Credential("sftp_password", tmp_path)
    assert got.journal.key_file == tmp_path / "journal_key"


def test_bulk_needs_no_sftp_and_has_its_own_batch_size(loaded: Write) -> None:
    got = loaded(BULK)

    assert got.fallback.max_contacts == 4000
    assert got.sftp.host == ""


def test_byte_order_mark_and_windows_line_ends_do_no_harm(loaded: Write) -> None:
    assert loaded("\ufeff" + VALID.replace("\n", "\r\n")) == loaded(VALID)


def test_true_is_not_a_number(loaded: Write) -> None:
    assert "[server] wait_s: This must be a number, not true or false." in refusal(
        loaded, "[server]\nwait_s = true\n"
    )


def test_one_slip_is_told_once(loaded: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(VALID.replace("base_url", "bas_url").replace("[sftp]", "[ftp]"))

    assert [problem.place for problem in caught.value.problems] == ["[ftp]", "[engage] bas_url"]


def test_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        config.load(tmp_path / "agent.toml")

    assert caught.value.problems[0].place == str(tmp_path / "agent.toml")


def test_folder_in_place_of_the_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


def test_endless_nesting_is_a_problem_and_no_crash(loaded: Write) -> None:
    assert "not valid TOML" in refusal(loaded, "x = " + "[" * 100_000)


def test_endless_number_is_a_problem_and_no_crash(loaded: Write) -> None:
    assert "not valid TOML" in refusal(loaded, "x = " + "9" * 5_000)


def test_strange_key_cannot_forge_a_line_of_the_report(loaded: Write) -> None:
    report = refusal(loaded, '"a\\n[store] id" = 1\n')

    assert report.count("\n") == 0


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("engage", "apiKey"),
        ("engage", "api-key"),
        ("engage", "token"),
        ("sftp", "Password"),
        ("sftp", "private_key"),
        ("server", "token"),
        ("store", "engage_password"),
        ("log", "client_secret"),
    ],
)
def test_secret_under_any_of_its_names_is_refused(loaded: Write, table: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(f'[{table}]\n{key} = "hunter2"\n')

    assert f"[{table}] {key}: Secrets may not stand in this file." in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "pasted",
    [
        "0b9f3e6a-7c1d-4f58-9a42-d1e0c3b7a965",
        "0B9F3E6A7C1D4F589A42D1E0C3B7A965",
        "c2VjcmV0IHNlY3JldA==",
        "x7Kp_Qm29-vTnL4wZr8yBc1dEf3gHj5k",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_pasted_secret_is_refused_and_not_repeated(loaded: Write, pasted: str) -> None:
    report = refusal(loaded, f'[journal]\nkey_file = "{pasted}"\n')

    assert report.startswith("[journal] key_file: This looks like the secret itself.")
    assert pasted not in report


@pytest.mark.parametrize(
    "name", ["journal_key", "journal-key-of-store-0042", "journal.key", "Journal_Key_2", "k"]
)
def test_name_that_reads_like_words_is_a_credential(
    loaded: Write, tmp_path: Path, name: str
) -> None:
    got = loaded(extra=f'[journal]\nkey_file = "{name}"\n')

    assert got.journal.key_file == Credential(name, tmp_path)


# --- warnings ---------------------------------------------------------------------------------


def test_good_settings_give_no_warning(loaded: Write) -> None:
    assert config.warnings(loaded()) == ()


@pytest.mark.parametrize(
    ("table", "values", "place"),
    [
        ("engage", {"create_timeout_s": 9.9}, "[engage] create_timeout_s"),
        ("engage", {"max_requests_per_s": 50.0}, "[engage] max_requests_per_s"),
        ("fallback", {"verify": "none"}, "[fallback] verify"),
        ("fallback", {"import_grace_s": 599.0}, "[fallback] import_grace_s"),
    ],
)
def test_unwise_setting_is_taken_with_a_warning(
    loaded: Write, table: str, values: dict[str, Any], place: str
) -> None:
    given = config.warnings(with_table(loaded(), table, **values))

    assert [warning.place for warning in given] == [place]


# --- files ------------------------------------------------------------------------------------


def test_files_in_order_give_no_problem_and_no_hint_and_nothing_is_made(
    ready: Config, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())

    assert config.check_files(ready, mounts=()) == ()
    assert config.file_hints(ready) == ()
    assert sorted(tmp_path.iterdir()) == before


def test_missing_open_and_empty_secrets_are_told_together(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "engage_api_key").unlink()
    (tmp_path / "sftp_password").chmod(0o640)
    (tmp_path / "journal_key").touch(mode=0o600)
    with_key = with_table(ready, "journal", key_file=tmp_path / "journal_key")

    report = texts(config.check_files(with_key, mounts=()))

    assert "[engage] api_key_file: The file" in report
    assert "does not exist" in report
    assert "[sftp] password_file: The file" in report
    assert f"chmod 600 {tmp_path}/sftp_password" in report
    assert "[journal] key_file: The file" in report
    assert "is empty" in report
    assert "s3cret" not in report


def test_sftp_secrets_are_not_asked_for_with_bulk(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "sftp_password").unlink()
    (tmp_path / "known_hosts").unlink()
    bulk = with_table(ready, "fallback", transport="bulk")

    assert config.check_files(bulk, mounts=()) == ()
    assert config.file_hints(bulk) == ()


@pytest.mark.parametrize("content", [None, "", "# a comment\n\n"])
def test_without_a_pinned_host_key_the_hint_names_the_command(
    ready: Config, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "known_hosts").unlink()
    if content is not None:
        (tmp_path / "known_hosts").write_text(content)

    assert config.check_files(ready, mounts=()) == ()
    assert "till-agent host-key trust" in texts(config.file_hints(ready))


def test_without_tokens_the_hint_names_the_command(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "tokens").unlink()

    assert "till-agent token new" in texts(config.file_hints(ready))


def test_tokens_file_that_others_may_write_is_refused(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "tokens").chmod(0o602)

    assert "let themselves in" in texts(config.check_files(ready, mounts=()))


def test_listening_to_the_network_without_tls_or_tokens_is_told_together(
    ready: Config, loaded: Write, tmp_path: Path
) -> None:
    (tmp_path / "tokens").unlink()
    path = tmp_path / "agent.toml"
    path.write_text(path.read_text().replace("[server]", '[server]\nhost = "0.0.0.0"'))

    with pytest.raises(ConfigError) as caught:
        config.load_with_files(path)

    report = texts(caught.value.problems)
    assert "[server] host: Others on the network could reach this address" in report
    assert "[server] tokens_file: There are no tokens" in report


def test_listening_to_the_network_with_tls_and_tokens_is_fine(
    ready: Config, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path / "tls")
    named = {"tls_certificate_file": certificate, "tls_key_file": key, "host": "192.0.2.7"}

    assert texts(config.check_files(with_table(ready, "server", **named), mounts=())) == ""
    assert texts(config.file_hints(with_table(ready, "server", **named))) == ""


def test_certificate_that_cannot_be_used_is_refused_at_its_setting(
    ready: Config, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path / "tls")
    key.chmod(0o644)
    named = with_table(ready, "server", tls_certificate_file=certificate, tls_key_file=key)

    problems = config.check_files(named, mounts=())

    assert [problem.place for problem in problems] == ["[server] tls_key_file"]
    assert f"chmod 600 {key}" in texts(problems)


def test_certificate_that_ends_soon_is_a_hint(ready: Config, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path / "tls", days=5)
    named = with_table(ready, "server", tls_certificate_file=certificate, tls_key_file=key)

    assert config.check_files(named, mounts=()) == ()
    assert "The agent's own certificate ends on" in texts(config.file_hints(named))


def test_listening_everywhere_without_a_name_is_a_hint(ready: Config) -> None:
    everywhere = with_table(ready, "server", host="0.0.0.0")

    assert "[server] allowed_hosts: " in texts(config.file_hints(everywhere))


def test_socket_in_place_of_a_file_or_for_an_unknown_group_is_refused(
    ready: Config, tmp_path: Path
) -> None:
    (tmp_path / "agent.sock").touch()
    named = with_table(ready, "server", socket=tmp_path / "agent.sock", socket_group="no-such")

    problems = config.check_files(named, mounts=())

    assert [problem.place for problem in problems] == ["[server] socket", "[server] socket_group"]


def test_problems_of_a_setting_and_of_its_file_are_not_told_twice(
    ready: Config, tmp_path: Path
) -> None:
    (tmp_path / "engage_api_key").unlink()
    path = tmp_path / "agent.toml"
    path.write_text(path.read_text().replace("[journal]\n", "[journal]\nkey_file = 7\n"))

    with pytest.raises(ConfigError) as caught:
        config.load_with_files(path)

    places = [problem.place for problem in caught.value.problems]
    assert places == ["[journal] key_file", "[engage] api_key_file"]


def test_certificates_that_are_none_are_refused(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    garbage = config.check_files(with_table(ready, "engage", ca_file=tmp_path / "ca.pem"), ())
    missing = config.check_files(with_table(ready, "engage", ca_file=tmp_path / "no.pem"), ())

    assert "holds no certificates" in texts(garbage)
    assert "does not exist" in texts(missing)


def test_missing_stylesheet_is_refused(ready: Config, tmp_path: Path) -> None:
    problems = config.check_files(with_table(ready, "fallback", xslt=tmp_path / "no.xslt"), ())

    assert [problem.place for problem in problems] == ["[fallback] xslt"]


def test_file_where_a_folder_must_be_is_refused(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    problems = config.check_files(ready, mounts=())

    assert [problem.place for problem in problems] == ["[journal] path", "[fallback] spool"]


def test_folder_where_the_journal_must_be_is_refused(ready: Config, tmp_path: Path) -> None:
    (tmp_path / "data" / "journal.db").mkdir(parents=True)

    assert 'Write for example "' in texts(config.check_files(ready, mounts=()))


def test_folder_that_may_not_be_written_is_refused(
    ready: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere

    assert "This user may not write to" in texts(config.check_files(ready, mounts=()))


@pytest.mark.parametrize(
    "kind", ["tmpfs", "ramfs", "nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"]
)
def test_journal_in_memory_or_on_the_network_is_refused_naming_the_mount(
    ready: Config, tmp_path: Path, kind: str
) -> None:
    mounts = (Mount(Path("/"), "ext4"), Mount(tmp_path, kind))

    problems = config.check_files(ready, mounts)

    assert [problem.place for problem in problems] == ["[journal] path"]
    assert f"lies on {tmp_path}, which is {kind}" in str(problems[0])


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "fuseblk"])
def test_journal_on_a_local_disk_is_fine(ready: Config, tmp_path: Path, kind: str) -> None:
    mounts = (Mount(Path("/"), "tmpfs"), Mount(tmp_path, "nfs"), Mount(tmp_path, kind))

    assert config.check_files(ready, mounts) == ()  # the last mount on a point is the one seen


def test_journal_behind_a_link_is_judged_by_where_it_really_lies(
    ready: Config, tmp_path: Path
) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "share")

    problems = config.check_files(ready, (Mount(tmp_path / "share", "nfs"),))

    assert [problem.place for problem in problems] == ["[journal] path"]


def test_mounts_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "36 22 0:33 / /mnt/shop\\040data rw - cifs //server/share rw\n"
        "nonsense\n"
    )

    assert config.mounts_now(table) == (
        Mount(Path("/"), "ext4"),
        Mount(Path("/mnt/shop data"), "cifs"),
    )
    assert config.mounts_now(tmp_path / "missing") == ()


# --- showing ----------------------------------------------------------------------------------


def test_description_is_json_and_holds_no_secret(ready: Config) -> None:
    described = json.dumps(config.describe(ready))

    assert json.loads(described)["engage"]["api_key_file"] == "engage_api_key"
    assert json.loads(described)["retry"]["waits_s"] == [10.0, 30.0, 60.0, 300.0]
    assert "s3cret" not in described


def test_hash_changes_with_a_setting_and_with_nothing_else(loaded: Write) -> None:
    first = config.config_hash(loaded())

    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert config.config_hash(loaded("# a comment\n" + VALID)) == first
    assert config.config_hash(loaded(extra="[link]\nprobe_s = 16\n")) != first


# --- generated texts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "what"), [("agent.toml.example", "example"), ("docs/config.md", "reference")]
)
def test_committed_file_is_what_the_code_generates(path: str, what: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "agent.config", what], cwd=ROOT, capture_output=True, check=True
    )

    assert (ROOT / path).read_text(encoding="utf-8") == printed.stdout.decode()


def test_wrong_call_of_the_generator_shows_its_usage() -> None:
    assert generator.main([]) == 2
    assert generator.main(["nonsense"]) == 2


def test_example_loads_and_its_files_are_in_order_once_the_secrets_are_written(
    loaded: Write, tmp_path: Path
) -> None:
    example = loaded(config.example())
    for name in ("engage_api_key", "sftp_password"):
        (tmp_path / name).write_text("s3cret\n")
        (tmp_path / name).chmod(0o600)
    local = with_table(example, "journal", path=tmp_path / "journal.db")
    local = with_table(local, "fallback", spool=tmp_path / "spool")

    assert config.check_files(local, mounts=()) == ()
    assert config.warnings(example) == ()


def test_example_with_every_line_taken_in_loads_too(loaded: Write) -> None:
    every = re.sub(r"(?m)^#(?=\w+ = |\[)", "", config.example())
    one_login = re.sub(r"(?m)^private_key_file = .*\n", "", every)

    got = loaded(one_login)

    assert got.engage.required == {"Member": ("firstName", "lastName"), "Contact": ("email",)}


def test_commented_defaults_of_the_example_are_the_defaults(loaded: Write) -> None:
    every = tomllib.loads(re.sub(r"(?m)^#(?=\w+ = |\[)", "", config.example()))
    shown = config.describe(loaded())

    different = {
        f"{table}.{key}"
        for table, cls in config.TABLES.items()
        for key, described in config.settings_of(cls).items()
        if described.setting.example is None and every[table][key] != shown[table][key]
    }

    assert different == set()


def every_setting() -> list[tuple[str, str, config.Described]]:
    return [
        (table, key, described)
        for table, cls in config.TABLES.items()
        for key, described in config.settings_of(cls).items()
    ]


@pytest.mark.parametrize(
    ("table", "key", "described"),
    every_setting(),
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_every_setting_says_what_it_means_and_has_a_unit_and_a_fitting_default(
    table: str, key: str, described: config.Described, tmp_path: Path
) -> None:
    about = described.setting
    needs_unit = key.endswith(("_s", "_days", "_mb"))

    assert re.fullmatch(r"[A-Z].*\.", about.meaning)
    assert bool(about.unit) or not needs_unit
    assert f"\n| `{key}` | {about.kind.name} |" in config.reference()
    assert (
        described.required
        or described.default in (None, "", (), {})
        or (about.kind.read(tomllib.loads(f"x = {toml_text(described.default)}")["x"], Path("/")))
    )
    assert about.example is None or about.kind.read(about.example, tmp_path)


def test_tables_are_frozen_and_config_has_one_field_for_each() -> None:
    assert list(get_type_hints(Config)) == list(config.TABLES)
    assert get_type_hints(Config) == config.TABLES
    assert all(cls.__dataclass_params__.frozen for cls in config.TABLES.values())
