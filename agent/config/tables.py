"""The tables of agent.toml: a frozen class each, every field with unit, default and meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import __version__
from agent.config import texts
from agent.config.kinds import Choice, File, Kind, ListOf, Number, Secret, TableOf, Text
from agent.secrets import Credential, SecretSource

# --- how a setting is described ---------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What people are told about one setting; stands in the field's metadata as "setting"."""

    kind: Kind
    meaning: str  # one sentence or two
    unit: str = ""
    example: Any = None  # as in TOML; what the example file shows where no default can be shown
    default_text: str = ""  # where the default's own value says too little
    needed_for_sftp: bool = False
    in_example: bool = False  # the example file sets it, though it has a default


def about(kind: Kind, meaning: str, **more: Any) -> dict[str, Setting]:
    """Describe a field of a table in its metadata; a field without a default is required."""
    return {"setting": Setting(kind, meaning, **more)}


@dataclass(frozen=True)
class Described:
    """A setting with its default."""

    setting: Setting
    default: Any  # dataclasses.MISSING where it is required

    @property
    def required(self) -> bool:
        """Say whether agent.toml must have it."""
        return self.default is dataclasses.MISSING


def settings_of(table: type[Any]) -> dict[str, Described]:
    """Give the settings of a table's class by name, in order."""
    return {
        each.name: Described(
            each.metadata["setting"],
            each.default if each.default_factory is dataclasses.MISSING else each.default_factory(),
        )
        for each in dataclasses.fields(table)
    }


def _seconds(at_most: float) -> Number:
    return Number(at_most)


def _age(at_most: float) -> Number:
    return Number(at_most, at_least=0)


def _count(at_least: int, at_most: int) -> Number:
    return Number(at_most, at_least=at_least, whole=True)


_COUNTRY = Text("two upper-case letters, ISO 3166", texts.country)
_FILE_PART = Text("up to 40 letters, digits, dots, dashes, underscores", texts.file_part)
_NAME_SIGNS = "letters, digits, underscores, dots"
_ATTRIBUTE = Text(_NAME_SIGNS, texts.attribute)
_CONTACT_TYPE = Text(_NAME_SIGNS, texts.contact_type)
_HOST = Text("a machine's name or address", texts.host_name)
_DAY = 86_400
BULK_MAX = 4000  # Engage's limit for one bulk call

# --- the tables -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Store:
    """Which store and till this is."""

    id: str = field(
        metadata=about(
            _FILE_PART,
            "The store's id in Engage; sent as storeExternalId with new contacts and part of the"
            " names of batch files.",
            example="0042",
        )
    )
    till: str = field(
        metadata=about(
            _FILE_PART,
            "Which till in the store this is; no two tills of a store may share it.",
            example="1",
        )
    )
    source: str = field(
        default="POS",
        metadata=about(Text(), "Where new contacts come from, unless the POS says otherwise."),
    )
    country_code: str | None = field(
        default=None,
        metadata=about(
            _COUNTRY,
            "The country of new contacts where the POS gives none.",
            example="SE",
            default_text="none is added",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the POS finds the agent."""

    host: str = field(
        default="127.0.0.1",
        metadata=about(
            Text("an address of this machine", texts.listen_host),
            "The address to listen on; with 127.0.0.1 the agent listens on ::1 too, so that"
            " localhost leads here. One that others on the network can reach needs TLS and tokens.",
        ),
    )
    port: int = field(
        default=8717,
        metadata=about(_count(0, 65535), "The port to listen on; 0 takes any free one."),
    )
    tls_certificate_file: Path | None = field(
        default=None,
        metadata=about(
            File("PEM, the agent's own certificate first, then its issuer's"),
            "The certificate with which the agent speaks TLS, https instead of http, to everybody.",
            example="tls_certificate.pem",
            default_text="no TLS",
        ),
    )
    tls_key_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The private key of that certificate, without a passphrase.",
            example="tls_key",
            default_text="no TLS",
        ),
    )
    socket: Path | None = field(
        default=None,
        metadata=about(
            File(),
            "A Unix socket to listen on as well; it needs a token as the port does.",
            example="/run/till-agent/agent.sock",
            default_text="none",
        ),
    )
    socket_mode: str = field(
        default="0660",
        metadata=about(
            Text("three or four octal digits", texts.file_mode),
            "Who may connect to the Unix socket, as chmod writes it.",
        ),
    )
    socket_group: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "The group that the Unix socket is given to; the agent's user must belong to it.",
            example="pos",
            default_text="the agent's own",
        ),
    )
    tokens_file: Path = field(
        default=Path("/etc/till-agent/tokens"),
        metadata=about(
            File(), "The hashes of the tokens, a line per POS; written by till-agent token new."
        ),
    )
    wait_s: float = field(
        default=3.0,
        metadata=about(
            _age(9),
            "How long an answer waits for Engage if the POS does not say; after that it is 202.",
            unit="seconds",
        ),
    )
    dedupe_window_s: float = field(
        default=600.0,
        metadata=about(
            _age(7 * _DAY),
            "Within this time an identical request for the same contact is the same change; 0"
            " turns that off.",
            unit="seconds",
        ),
    )
    allowed_hosts: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(_HOST),
            "More names that a request's Host header may carry; localhost and the loopback"
            " addresses always may.",
            example=["till-12.shop.example"],
            default_text="none more",
        ),
    )
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(Text("scheme://host or scheme://host:port", texts.origin)),
            "Web pages from elsewhere that may call the agent, for a POS that runs in a browser.",
            example=["https://pos.shop.example"],
            default_text="none",
        ),
    )
    max_connections: int = field(
        default=256,
        metadata=about(
            _count(8, 8192),
            "How many connections may be open at once; whoever comes then hears 503 Overloaded.",
        ),
    )
    caller_timeout_s: float = field(
        default=10.0,
        metadata=about(
            _seconds(300),
            "How long a caller may take over each part: a request's head, its body, and taking the"
            " answer; after that the connection is cut.",
            unit="seconds",
        ),
    )

    def address(self, port: int | None = None) -> str:
        """Give the URL at which this machine's own programs find the agent."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        scheme = "http" if self.tls_certificate_file is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or self.port}"


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Where changes are kept until they are settled, and some time after."""

    path: Path = field(
        default=Path("/var/lib/till-agent/journal.db"),
        metadata=about(
            File("on a local disk"),
            "The journal's file; what it promises survives a power cut only on a real disk.",
        ),
    )
    retain_days: int = field(
        default=30,
        metadata=about(
            _count(1, 3650),
            "How long settled changes stay visible before they are erased; open ones never are.",
            unit="days",
        ),
    )
    min_free_mb: int = field(
        default=64,
        metadata=about(
            _count(1, 100_000_000),
            "With less free disk space than this nothing more is taken (507), so that what was"
            " taken can be finished.",
            unit="MiB",
        ),
    )
    key_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The key that encrypts the journal on disk.",
            example="journal_key",
            default_text="not encrypted",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Engage:
    """How Engage is reached and what the tenant expects."""

    base_url: str = field(
        metadata=about(
            Text("https, or http to this machine", texts.base_url),
            "The tenant's address, without /api/v3.",
            example="https://acme.voyado.com",
        )
    )
    api_key_file: SecretSource = field(
        default=Credential("engage_api_key", Path("/etc/till-agent")),
        metadata=about(Secret(), "The key to Engage's API."),
    )
    user_agent: str = field(
        default=f"till-agent/{__version__}",
        metadata=about(
            Text("product/version", texts.product),
            "How the agent calls itself towards Engage.",
            example="AcmePOS/1.5",
            default_text="till-agent/ and its version",
        ),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=about(
            File("PEM"),
            "Certificates to trust instead of the system's, for a network that inspects TLS.",
            example="/etc/till-agent/ca.pem",
            default_text="the system's",
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=about(
            Text("http://host:port, without a login", texts.proxy),
            "The HTTP proxy on the way to Engage.",
            example="http://proxy.shop.example:3128",
            default_text="none",
        ),
    )
    create_timeout_s: float = field(
        default=11.0,
        metadata=about(
            _seconds(120),
            "How long a create may take; Engage itself gives up in under 10 seconds and rolls"
            " back, so waiting a little longer gives a clear answer.",
            unit="seconds",
        ),
    )
    timeout_s: float = field(
        default=20.0,
        metadata=about(_seconds(300), "How long any other call may take.", unit="seconds"),
    )
    contact_key: str = field(
        default="email",
        metadata=about(
            Choice(("email", "mobilePhone", "socialSecurityNumber", "externalId", "memberNumber")),
            "The attribute by which the tenant tells contacts apart.",
        ),
    )
    custom_key: str = field(
        default="memberNumber",
        metadata=about(
            Choice(("memberNumber", "externalId")),
            "The attribute that customKey means in this tenant; Voyado sets it.",
        ),
    )
    default_contact_type: str = field(
        default="Member",
        metadata=about(_CONTACT_TYPE, "The type of new contacts where the POS gives none."),
    )
    on_existing: str = field(
        default="update",
        metadata=about(
            Choice(("update", "conflict")),
            "What a create does when the contact exists: update it, or answer 409 as Engage does;"
            " with conflict no create goes by file, for an import would update.",
        ),
    )
    max_requests_per_s: float = field(
        default=5.0,
        metadata=about(
            _seconds(200),
            "The most calls a second this till makes; the whole chain shares Engage's limit.",
            unit="calls per second",
        ),
    )
    backlog_requests_per_s: float = field(
        default=1.0,
        metadata=about(
            _seconds(200),
            "The most calls a second for what waits from an outage, when all tills come back at"
            " once.",
            unit="calls per second",
        ),
    )
    phone_region: str | None = field(
        default=None,
        metadata=about(
            _COUNTRY,
            "The country whose numbers need no + and country code.",
            example="SE",
            default_text="all numbers need +",
        ),
    )
    attributes: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(_ATTRIBUTE),
            "The tenant's custom attributes; if given, others are refused with a suggestion,"
            " because Engage drops them silently.",
            example=["favouriteBrand", "shoeSize"],
            default_text="any are let through",
        ),
    )
    required: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=about(
            TableOf(ListOf(_ATTRIBUTE, may_be_empty=False), "keys are contact types"),
            "The attributes a new contact must have, by contact type; the contact key is always"
            " one.",
            example={"Member": ["firstName", "lastName"], "Contact": ["email"]},
            default_text="none more",
        ),
    )
    minimum_age: Mapping[str, int] = field(
        default_factory=dict,
        metadata=about(
            TableOf(_count(1, 150), "keys are contact types, each from 1 to 150"),
            "How old somebody must be, by contact type, as birthDay or socialSecurityNumber tells;"
            " an import leaves out who is younger without a word.",
            unit="years",
            example={"Member": 18},
            default_text="any age",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When a change that could not be delivered is tried again."""

    waits_s: tuple[float, ...] = field(
        default=(10.0, 30.0, 60.0, 300.0),
        metadata=about(
            ListOf(_seconds(_DAY), may_be_empty=False),
            "The waits after the first, second, … try; the last one repeats, and some jitter is"
            " added.",
            unit="seconds",
        ),
    )
    api_attempts: int = field(
        default=4,
        metadata=about(
            _count(1, 1000),
            "After so many failed tries by the API a change takes the file route; throttling and"
            " an offline line do not count.",
            unit="tries",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Link:
    """When the line to Engage counts as down."""

    offline_after: int = field(
        default=3,
        metadata=about(
            _count(1, 1000),
            "After so many failures of the line in a row it counts as offline.",
            unit="failures",
        ),
    )
    probe_s: float = field(
        default=15.0,
        metadata=about(
            _seconds(3600), "How often an offline line is tried, with jitter.", unit="seconds"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """The file route: what is done when the API cannot be used."""

    transport: str = field(
        default="sftp",
        metadata=about(
            Choice(("sftp", "bulk")),
            "How batches reach Engage: as files by SFTP, or through its bulk calls.",
        ),
    )
    spool: Path = field(
        default=Path("/var/lib/till-agent/spool"),
        metadata=about(File(), "The folder for batch files that have not been uploaded yet."),
    )
    seal_after_s: float = field(
        default=300.0,
        metadata=about(
            _age(_DAY),
            "A batch is closed when its oldest change has waited so long, and twice as long for"
            " each file that still waits to be uploaded.",
            unit="seconds",
        ),
    )
    max_contacts: int = field(
        default=5000,
        metadata=about(
            _count(1, 20_000),
            "The most contacts in one batch, which is closed once they wait; with bulk at most"
            " 4000, which then is the default.",
            unit="contacts",
        ),
    )
    api_drain_max: int = field(
        default=100,
        metadata=about(
            _count(0, 100_000),
            "When the line is back, or the agent starts after an outage, what waits of up to so"
            " many customers goes by the API; of more, in batches.",
            unit="customers",
        ),
    )
    verify: str = field(
        default="all",
        metadata=about(
            Choice(("all", "creates", "none")),
            "Which imported changes are looked up in Engage afterwards; the import itself reports"
            " nothing.",
        ),
    )
    import_grace_s: float = field(
        default=7200.0,
        metadata=about(
            _seconds(30 * _DAY),
            "A file that Engage has not taken after this time raises an alarm; a bulk call of which"
            " nothing shows by then counts as done.",
            unit="seconds",
        ),
    )
    xslt: Path | None = field(
        default=None,
        metadata=about(
            File("XSLT 1.0"),
            "A stylesheet that turns the standard document into what the tenant's import wants; it"
            " needs about 100 MB of memory for 10,000 contacts.",
            example="/etc/till-agent/import.xslt",
            default_text="none",
        ),
    )
    file_name: str = field(
        default=texts.FILE_NAME,
        metadata=about(
            Text(
                "{timestamp}, {sequence}, {store} or {till}; ends with _contacts.xml",
                texts.file_name,
            ),
            "The name of a batch file.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Sftp:
    """Engage's SFTP server; needed while fallback.transport is "sftp", and for a member export."""

    host: str = field(
        default="",
        metadata=about(_HOST, "The server's name.", example="ftp.voyado.com", needed_for_sftp=True),
    )
    port: int = field(default=22, metadata=about(_count(1, 65535), "The server's port."))
    username: str = field(
        default="",
        metadata=about(
            Text(),
            "The login; it decides whether staging or production is reached.",
            example="acme",
            needed_for_sftp=True,
        ),
    )
    password_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The login's password; give this or private_key_file.",
            example="sftp_password",
            in_example=True,
            default_text="none",
        ),
    )
    private_key_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The login's private key; give this or password_file.",
            example="sftp_private_key",
            default_text="none",
        ),
    )
    known_hosts_file: Path | None = field(
        default=None,
        metadata=about(
            File(),
            "The server's pinned host key; written by till-agent host-key trust, never by itself.",
            example="/etc/till-agent/known_hosts",
            needed_for_sftp=True,
        ),
    )
    directory: str = field(
        default="",
        metadata=about(
            Text(),
            "The server's folder from which Engage imports.",
            example="/import",
            needed_for_sftp=True,
        ),
    )
    timeout_s: float = field(
        default=60.0,
        metadata=about(
            _seconds(3600),
            "How long connecting, and any silence after it, may take.",
            unit="seconds",
        ),
    )
    poll_s: float = field(
        default=300.0,
        metadata=about(
            _seconds(_DAY),
            "How often the server is asked whether Engage has taken a file.",
            unit="seconds",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Register:
    """Whom the till recognises while the line is down."""

    retain_days: int = field(
        default=365,
        metadata=about(
            _count(1, 3650),
            "How long a customer with whom this till had to do is recognised after the last time;"
            " then the e-mail, phone and numbers that find them are erased.",
            unit="days",
        ),
    )
    export_directory: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "The folder of Engage's member export on the SFTP server; with it every member is"
            " recognised, without it what an export told is erased.",
            example="/integration/customerExport",
            default_text="none is read",
        ),
    )
    poll_s: float = field(
        default=900.0,
        metadata=about(
            _seconds(_DAY), "How often the server is asked for new exports.", unit="seconds"
        ),
    )
    max_members: int = field(
        default=500_000,
        metadata=about(
            _count(1, 10_000_000),
            "The most members that are kept; each takes some 250 bytes of the disk.",
            unit="members",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Cache:
    """How long answers from Engage may be used again."""

    contact_ttl_s: float = field(
        default=60.0,
        metadata=about(_age(_DAY), "How long a contact counts as fresh.", unit="seconds"),
    )
    purchases_ttl_s: float = field(
        default=300.0,
        metadata=about(_age(_DAY), "How long a list of purchases counts as fresh.", unit="seconds"),
    )
    promotions_ttl_s: float = field(
        default=60.0,
        metadata=about(
            _age(_DAY), "How long a list of promotions counts as fresh.", unit="seconds"
        ),
    )
    not_found_ttl_s: float = field(
        default=10.0,
        metadata=about(
            _age(3600),
            "How long Engage's word that a contact does not exist is passed on without asking"
            " again.",
            unit="seconds",
        ),
    )
    max_stale_s: float = field(
        default=259_200.0,
        metadata=about(
            _age(30 * _DAY),
            "While Engage cannot be reached, answers up to this old are served, marked as stale.",
            unit="seconds",
        ),
    )
    max_entries: int = field(
        default=2000,
        metadata=about(
            _count(0, 1_000_000),
            "The most answers kept; the least used go first, and 0 keeps none.",
            unit="answers",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is logged, to standard output; never personal data."""

    level: str = field(
        default="info",
        metadata=about(Choice(("debug", "info", "warning", "error")), "The least that is logged."),
    )
    format: str = field(
        default="json",
        metadata=about(
            Choice(("text", "json")), "Lines for people, or a JSON object per line for programs."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, a field per table of agent.toml."""

    store: Store
    server: Server = Server()
    journal: Journal = Journal()
    engage: Engage
    retry: Retry = Retry()
    link: Link = Link()
    fallback: Fallback = Fallback()
    sftp: Sftp = Sftp()
    register: Register = Register()
    cache: Cache = Cache()
    log: Log = Log()

    @property
    def uses_sftp(self) -> bool:
        """Say whether there is anything to do at the SFTP server."""
        return self.fallback.transport == "sftp" or self.register.export_directory is not None


TABLES: dict[str, type[Any]] = {
    "store": Store,
    "server": Server,
    "journal": Journal,
    "engage": Engage,
    "retry": Retry,
    "link": Link,
    "fallback": Fallback,
    "sftp": Sftp,
    "register": Register,
    "cache": Cache,
    "log": Log,
}
