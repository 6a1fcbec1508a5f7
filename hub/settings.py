"""The hub's settings, read once from the environment, frozen and passed down.

It leaves secrets' contents to `hub.secrets`; a setting exists only where two values behave differently.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.errors import GuanmoError

KNOWN = frozenset(
    {
        "GUANMO_HOME",
        "GUANMO_DATABASE_URL",
        "GUANMO_BIND",
        "GUANMO_HUB_PORT",
        "GUANMO_GATEWAY_PORT",
        "GUANMO_POOL_PORT",
        "GUANMO_MLFLOW_PORT",
        "GUANMO_PUBLIC_URL",
        "GUANMO_PRODUCTION",
    }
)


CLIENT_NAMES = frozenset({"GUANMO_URL", "GUANMO_MODEL", "GUANMO_BASE_MODEL"})
"""Names of `var/demo.env`, for clients: a shell that has read that file may still run our commands."""
DATABASES = ("sqlite:///", "postgresql+psycopg://")


class SettingsError(GuanmoError):
    """The environment holds settings that this program cannot use; all problems are told together."""

    code = "bad_settings"


@dataclass(frozen=True)
class Settings:
    """Where things are and how the hub is reached.

    Ports are TCP ports, `bind` an IPv4 address. `public_url` is what clients use as the gateway's base URL when a
    proxy stands in front of it, for example `https://hub.example/v1`.
    """

    home: Path
    database_url: str
    bind: str = "127.0.0.1"
    hub_port: int = 8000
    gateway_port: int = 8080
    pool_port: int = 8090
    mlflow_port: int = 8050
    public_url: str = ""
    production: bool = False

    @property
    def hub_url(self) -> str:
        """The hub as processes of this machine reach it."""
        return f"http://{self.reach}:{self.hub_port}"

    @property
    def gateway_url(self) -> str:
        """The gateway's OpenAI base URL as a client of this machine reaches it."""
        return f"http://{self.reach}:{self.gateway_port}/v1"

    @property
    def gateway_admin_port(self) -> int:
        """The port of the gateway's `/metrics` and `/load`, on loopback: the one after its own."""
        return self.gateway_port % 65535 + 1

    @property
    def shown_gateway_url(self) -> str:
        """The gateway's OpenAI base URL as pages show it to clients."""
        return self.public_url or self.gateway_url

    @property
    def reach(self) -> str:
        """The address at which this machine reaches what listens on `bind`."""
        return "127.0.0.1" if self.bind == "0.0.0.0" else self.bind  # noqa: S104  compares, does not bind

    @property
    def artifacts(self) -> Path:
        """The immutable artefact store."""
        return self.home / "artifacts"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return settings from `GUANMO_…` names.

    Raises:
        SettingsError: unknown names, ports out of 1..65535 or given twice, an empty folder, a wrong address or kind of
            database; every problem at once.
    """
    unknown = sorted(name for name in environment if name.startswith("GUANMO_") and name not in KNOWN | CLIENT_NAMES)
    problems = [f"{name} is unknown (known: {', '.join(sorted(KNOWN))})" for name in unknown]
    home = Path(environment.get("GUANMO_HOME", "var")).absolute()
    if environment.get("GUANMO_HOME") == "":
        problems.append("GUANMO_HOME is empty; name a folder, or unset it")
    ports = _read_ports(environment, problems)
    database_url = environment.get("GUANMO_DATABASE_URL", f"sqlite:///{home / 'hub.sqlite3'}")
    if not database_url.startswith(DATABASES):
        # The rest of it may hold a password and is not repeated.
        scheme = database_url.partition(":")[0]
        problems.append(f"GUANMO_DATABASE_URL is of the kind '{scheme}'; begin it with {' or '.join(DATABASES)}")
    production = environment.get("GUANMO_PRODUCTION", "0")
    if production not in ("0", "1"):
        problems.append(f"GUANMO_PRODUCTION is '{production}'; use 0 or 1")
    bind, public_url = environment.get("GUANMO_BIND", "127.0.0.1"), environment.get("GUANMO_PUBLIC_URL", "")
    _check_addresses(bind, public_url, problems)
    if problems:
        text = "; ".join(problems)
        raise SettingsError(f"Settings refused: {text}", f"设置有误：{text}")
    return Settings(
        home=home,
        database_url=database_url,
        bind=bind,
        hub_port=ports["GUANMO_HUB_PORT"],
        gateway_port=ports["GUANMO_GATEWAY_PORT"],
        pool_port=ports["GUANMO_POOL_PORT"],
        mlflow_port=ports["GUANMO_MLFLOW_PORT"],
        public_url=public_url.rstrip("/"),
        production=production == "1",
    )


_PORTS = {"GUANMO_HUB_PORT": 8000, "GUANMO_GATEWAY_PORT": 8080, "GUANMO_POOL_PORT": 8090, "GUANMO_MLFLOW_PORT": 8050}


def _check_addresses(bind: str, public_url: str, problems: list[str]) -> None:
    try:
        ipaddress.IPv4Address(bind)
    except ValueError:
        problems.append(f"GUANMO_BIND is '{bind}'; give an IPv4 address such as 127.0.0.1 or 0.0.0.0")
    if public_url and not public_url.startswith(("http://", "https://")):
        problems.append(f"GUANMO_PUBLIC_URL is '{public_url}'; give the gateway's address, https://…/v1")


def _read_ports(environment: Mapping[str, str], problems: list[str]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name, default in _PORTS.items():
        text = environment.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
            problems.append(f"{name} is '{text}'; give a port from 1 to 65535")
            continue
        problems.extend(
            f"{name} and {other} are both {text}; give each its own" for other in ports if ports[other] == int(text)
        )
        ports[name] = int(text)
    return ports
