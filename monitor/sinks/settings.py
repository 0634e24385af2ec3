"""The sinks' options: what every sink has (route, quiet hours, patience), what those that write text have, and each type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, StringConstraints, model_validator

from monitor.records import Severity
from monitor.settings import Settings
from monitor.sinks.hours import Hours, clock_time

TextLanguage = Literal["ar", "de", "en", "es", "fr", "ja", "pt", "ru", "tr", "zh"]
"""Languages that Babelwatch's own messages are written in; `monitor/sinks/phrases/` holds one file for each."""


def _hours(value: str) -> str:
    Hours.parse(value)
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone; names are like Europe/Berlin") from None
    return value


def _time_of_day(value: str) -> str:
    if value:
        clock_time(value)
    return value


class BaseSinkSettings(Settings):
    """What every sink has: a name, a route, quiet hours, and patience."""

    keeps_state: ClassVar[bool] = False
    """Whether the other side follows incidents by itself, so that telling it again is upkeep and no reminder."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="Unique; part of its consumer group's name.")
    entities: tuple[str, ...] = Field((), description="Only alerts of these entities, by id; empty: all.")
    labels: Mapping[str, str | tuple[str, ...]] = Field(
        default_factory=dict,
        description="Only alerts whose entity carries all of these labels, each with this value or one of these; empty: all.",
    )
    signals: tuple[str, ...] = Field((), description="Only alerts of incidents that these signals opened; empty: all.")
    severities: tuple[Severity, ...] = Field(
        (), description="Only these severities; empty: all. The end of an incident goes wherever its beginning went."
    )
    languages: tuple[str, ...] = Field((), description="Only alerts in at least one of these languages; empty: all.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="Of quiet hours, summaries and times in messages."
    )
    quiet: tuple[Annotated[str, AfterValidator(_hours)], ...] = Field(
        (),
        description='Hours in which alerts are held and delivered afterwards: "22:00-07:00", "sat,sun 00:00-24:00", '
        '"mon-fri 18:30-08:00".',
    )
    quiet_passes: tuple[Severity, ...] = Field(
        ("critical",), description="Severities that are told in quiet hours too."
    )
    begin: Literal["oldest", "newest"] = Field(
        "oldest",
        description="Where a sink begins that was never there before: oldest, with every alert the topic still holds; "
        "newest, with those to come.",
    )
    repeat_s: float = Field(
        0.0,
        ge=0,
        description="An open incident that nobody acknowledged is told again after so long, in seconds; 0: never.",
    )
    status_url: str = Field("", description="Address of the status page, linked from each message.")
    retry_first_s: float = Field(1.0, gt=0, le=3600, description="First pause between attempts, in seconds.")
    retry_last_s: float = Field(60.0, gt=0, le=3600, description="Longest pause between attempts, in seconds.")
    give_up_s: float = Field(
        86_400.0, gt=0, description="An alert that could not be delivered for so long is dead-lettered, in seconds."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="One attempt may take so long, in seconds.")


class TextSinkSettings(BaseSinkSettings):
    """What sinks have that write for people: language, templates, digests."""

    language: TextLanguage = Field("en", description="Language of the message around the posts.")
    template: Path | None = Field(
        None, description="A Jinja2 file in place of the built-in text; docs/sinks.md shows what it can use."
    )
    posts: int = Field(3, ge=0, le=50, description="Representative posts in a message, if its length allows.")
    digest_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Alerts within so long of the first come as one message, in seconds; 0: each by itself.",
    )
    daily_at: Annotated[str, AfterValidator(_time_of_day)] = Field(
        "", description='Time of a daily summary for each entity that had incidents, "08:00"; empty: none.'
    )
    daily_only: bool = Field(False, description="Only the daily summary, no single alerts.")

    @model_validator(mode="after")
    def _daily_only_needs_a_time(self) -> Self:
        if self.daily_only and not self.daily_at:
            raise ValueError("daily_only needs daily_at")
        return self


LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class AlertmanagerSettings(BaseSinkSettings):
    """Prometheus Alertmanager, API v2."""

    keeps_state: ClassVar[bool] = True

    type: Literal["alertmanager"] = "alertmanager"
    urls: tuple[HttpUrl, ...] = Field(min_length=1, description="Base addresses of the cluster's members; all get all.")
    repeat_s: float = Field(
        300.0, ge=0, description="An open incident is sent again so often, so that it does not expire; 0: never."
    )
    hold_s: float = Field(
        86_400.0, gt=0, description="Alertmanager ends an alert by itself after this, should no end ever reach it."
    )
    token: SecretStr = Field(SecretStr(""), description="Bearer token; better from `token_file`.")
    token_file: Path | None = Field(None, description="File holding the bearer token.")
    extra_labels: Mapping[LabelName, str] = Field(
        default_factory=dict,
        description="Labels added to each alert, to route by what the sink chose: with `languages`, a desk.",
    )

    @model_validator(mode="after")
    def _held_longer_than_repeated(self) -> Self:
        if self.hold_s < 2 * self.repeat_s:
            raise ValueError("hold_s must be at least twice repeat_s, or alerts expire between two messages")
        return self


class WebhookSettings(BaseSinkSettings):
    """Any HTTP endpoint: a CloudEvents 1.0 JSON event for each alert, signed."""

    type: Literal["webhook"] = "webhook"
    url: HttpUrl = Field(description="Where to POST.")
    secret: SecretStr = Field(SecretStr(""), description="Key of the HMAC signature; better from `secret_file`.")
    secret_file: Path | None = Field(None, description="File holding the key of the signature.")
    headers: Mapping[str, str] = Field(default_factory=dict, description="Sent with each request.")


class AppriseSettings(TextSinkSettings):
    """A chat or any other service that Apprise knows: Slack, Teams, Telegram, Feishu, Lark, DingTalk, WeCom and 130 more."""

    type: Literal["apprise"] = "apprise"
    url: SecretStr = Field(
        SecretStr(""), description="Apprise URL, or the service's own webhook address; better from `url_file`."
    )
    url_file: Path | None = Field(None, description="File holding the URL, which holds the service's token.")
    sign_secret: SecretStr = Field(
        SecretStr(""), description="Of a Feishu or Lark robot that demands a signature; better from `sign_secret_file`."
    )
    sign_secret_file: Path | None = Field(None, description="File holding the key of the signature.")

    @model_validator(mode="after")
    def _has_a_url(self) -> Self:
        if not self.url.get_secret_value() and self.url_file is None:
            raise ValueError("url or url_file is needed")
        return self


class EmailSettings(TextSinkSettings):
    """E-mail by SMTP: plain text and HTML, one thread for each incident."""

    type: Literal["email"] = "email"
    host: str = Field(min_length=1, description="The mail server.")
    port: int = Field(587, ge=1, le=65_535, description="587 for STARTTLS, 465 for TLS, 25 for a local relay.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is secured.")
    ca_file: Path | None = Field(None, description="Certificate authority of the server; the system's when unset.")
    username: str = Field("", description="Empty: no login.")
    password: SecretStr = Field(SecretStr(""), description="Better from `password_file`.")
    password_file: Path | None = Field(None, description="File holding the password.")
    sender: str = Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$", description="Address of the sender.")
    recipients: tuple[Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")], ...] = Field(
        min_length=1, description="Addresses of the recipients; all in one message."
    )


class PagerDutySettings(BaseSinkSettings):
    """PagerDuty, Events API v2: an incident is one alert there, triggered, updated and resolved under its id."""

    keeps_state: ClassVar[bool] = True

    type: Literal["pagerduty"] = "pagerduty"
    url: HttpUrl = Field(
        HttpUrl("https://events.pagerduty.com/v2/enqueue"),
        description="For the EU: https://events.eu.pagerduty.com/v2/enqueue.",
    )
    routing_key: SecretStr = Field(
        SecretStr(""), description="Integration key of the service; better from `routing_key_file`."
    )
    routing_key_file: Path | None = Field(None, description="File holding the integration key.")

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.routing_key.get_secret_value() and self.routing_key_file is None:
            raise ValueError("routing_key or routing_key_file is needed")
        return self


class OpsgenieSettings(BaseSinkSettings):
    """Opsgenie (and the same API of Jira Service Management): an incident is one alert there, closed when it ends."""

    keeps_state: ClassVar[bool] = True

    type: Literal["opsgenie"] = "opsgenie"
    url: HttpUrl = Field(HttpUrl("https://api.opsgenie.com"), description="For the EU: https://api.eu.opsgenie.com.")
    api_key: SecretStr = Field(SecretStr(""), description="Key of the API integration; better from `api_key_file`.")
    api_key_file: Path | None = Field(None, description="File holding the key.")
    responders: tuple[str, ...] = Field(
        (), description="Names of teams that are to respond; empty: as the integration says."
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.api_key.get_secret_value() and self.api_key_file is None:
            raise ValueError("api_key or api_key_file is needed")
        return self


class StdoutSettings(TextSinkSettings):
    """Standard output, for trying things out and for log collectors."""

    type: Literal["stdout"] = "stdout"
    format: Literal["text", "json"] = Field("text", description="The message for people, or the CloudEvent.")


SinkSettings = (
    AlertmanagerSettings
    | WebhookSettings
    | AppriseSettings
    | EmailSettings
    | PagerDutySettings
    | OpsgenieSettings
    | StdoutSettings
)
