"""How the private MLflow server is started: loopback only, with a password, everything risky switched off.

It leaves starting and supervising to the caller (`guanmo up`), and talking to it to `registry.mlflow_mirror`.

Why a password on loopback: without one every local user could overwrite versions, and the server carries an assistant
that runs a shell. The basic-auth app costs 0.9 s of a start of 5 to 7 s (mlflow 3.17.2, 2 cores) and the two small
packages of the extra `mlflow[auth]` (flask-wtf, wtforms).
Source: mlflow 3.17.2, mlflow/environment_variables.py and mlflow/server/auth/basic_auth.ini
"""

import hashlib
import hmac
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from registry.errors import RegistryError

USERNAME = "guanmo"
HOST = "127.0.0.1"
_MIN_PASSWORD_CHARS = 16
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE")
_SWITCHES = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_ENABLE_MCP_TOOL_DISCOVERY": "false",
    "MLFLOW_ENABLE_OTLP_EXPORTER": "false",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "false",
    "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
    # A version's source is a model that this server stores; files and addresses of any kind are refused.
    "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": r"\Amodels:/m-[0-9a-f]{32}\Z",
}


class ServerSecretError(RegistryError):
    """The password file is missing or too weak."""

    code = "mlflow_password_unusable"


def server_argv(home: Path, port: int) -> list[str]:
    """Return the command; everything it keeps lies below `home`/mlflow."""
    root = _root(home)
    return [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{root / 'mlflow.sqlite3'}"),
        *("--artifacts-destination", str(root / "artifacts")),
        *("--allowed-hosts", f"{HOST}:{port}", "--cors-allowed-origins", f"http://{HOST}:{port}"),
        *("--uvicorn-opts", "--no-access-log --no-server-header --timeout-graceful-shutdown 5"),
    ]


def server_env(home: Path, *, password_file: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the server's whole environment; of `inherited` (os.environ) only what finds programs and libraries.

    Raises: ServerSecretError.
    """
    password = read_password(password_file)
    session_key = hmac.new(password.encode(), b"guanmo mlflow session key", hashlib.sha256).hexdigest()
    return {
        **{name: inherited[name] for name in _INHERITED if name in inherited},
        **_SWITCHES,
        "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(home)),
        "MLFLOW_AUTH_ADMIN_USERNAME": USERNAME,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": session_key,
    }


def prepare_server(home: Path, *, password_file: Path) -> None:
    """Create the folders (0700) and the auth configuration; repeatable, and to be called before each start.

    MLflow reads the admin password only when its user table is empty. The table holds nothing else, so each password
    has its own: a new password file takes effect at the next start.
    Raises: ServerSecretError.
    """
    password = read_password(password_file)
    root = _root(home)
    (root / "artifacts").mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    fingerprint = hashlib.sha256(b"guanmo mlflow users " + password.encode()).hexdigest()[:12]
    text = (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{root / f'users-{fingerprint}.sqlite3'}\n"
        f"admin_username = {USERNAME}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Hashing the password on each request would triple its cost.
        "auth_cache_ttl_seconds = 300\n"
    )
    partial = root / "auth.ini.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, _auth_config(home))


def read_password(password_file: Path) -> str:
    """Return the password. Raises: ServerSecretError."""
    if not password_file.is_file():
        raise ServerSecretError(
            f"The MLflow password file {password_file} is missing. Run 'guanmo init'.",
            f"缺少 MLflow 密码文件 {password_file}。请运行 guanmo init。",
            field=str(password_file),
        )
    password = password_file.read_text(encoding="utf-8").strip()
    if len(password) < _MIN_PASSWORD_CHARS:
        raise ServerSecretError(
            f"The password in {password_file} has {len(password)} characters, at least {_MIN_PASSWORD_CHARS} are "
            "needed. Delete the file and run 'guanmo init'.",
            f"{password_file} 中的密码只有 {len(password)} 个字符，至少需要 {_MIN_PASSWORD_CHARS} 个。"
            "请删除该文件并运行 guanmo init。",
            field=str(password_file),
        )
    return password


def _root(home: Path) -> Path:
    return home.absolute() / "mlflow"


def _auth_config(home: Path) -> Path:
    return _root(home) / "auth.ini"
