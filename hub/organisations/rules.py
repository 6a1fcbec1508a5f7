"""Pure rules of organisations: credit codes, slugs, e-mail addresses, which role fits which kind.

It leaves reading and writing rows to `service`.
"""

import re
import unicodedata
from enum import StrEnum

from hub.actor import Role
from hub.errors import InvalidValueError

USCC_LETTERS = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of a credit code: no I, O, S, V, Z. Source: GB 32100-2015 table 1."""
_USCC = re.compile(rf"[1-9A-GY][{USCC_LETTERS}][0-9]{{6}}[{USCC_LETTERS}]{{10}}")
DEMO_USCC_PREFIX = "91990000DEM0"
"""Codes of demonstration firms. Division 990000 does not exist, so no real firm can own one."""

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
RESERVED_SLUGS = frozenset(
    {"admin", "api", "app", "base", "guanmo", "internal", "login", "lora", "me", "model", "models", "new", "none",
     "null", "official", "public", "root", "static", "support", "system", "undefined", "v1"}
)  # fmt: skip
_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,188}[a-z0-9])?")
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_BYTES = 1_024


class OrganisationKind(StrEnum):
    """What an organisation is here; it limits the roles of its people."""

    FACTORY = "factory"
    INTEGRATOR = "integrator"
    DEVELOPER = "developer"
    PROVIDER = "provider"
    OPERATOR = "operator"
    AUTHORITY = "authority"


PUBLIC_KINDS = (
    OrganisationKind.FACTORY,
    OrganisationKind.INTEGRATOR,
    OrganisationKind.DEVELOPER,
    OrganisationKind.PROVIDER,
)
"""Kinds that anybody may sign up as; the other two are made by an operator."""
_PUBLIC_ROLES = frozenset({Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.PROVIDER})
FIRST_ROLE = {
    OrganisationKind.FACTORY: Role.FACTORY,
    OrganisationKind.INTEGRATOR: Role.INTEGRATOR,
    OrganisationKind.DEVELOPER: Role.DEVELOPER,
    OrganisationKind.PROVIDER: Role.PROVIDER,
    OrganisationKind.OPERATOR: Role.OPERATOR,
    OrganisationKind.AUTHORITY: Role.AUDITOR,
}


class BadCreditCodeError(InvalidValueError):
    """The unified social credit code is malformed or its check character is wrong."""

    code = "bad_uscc"


class BadSlugError(InvalidValueError):
    """The short name of the organisation cannot be used in public names."""

    code = "bad_slug"


class BadEmailError(InvalidValueError):
    """The e-mail address cannot be one."""

    code = "bad_email"


class BadPasswordError(InvalidValueError):
    """The password is too short or too long."""

    code = "bad_password"


class BadRoleError(InvalidValueError):
    """The role does not fit the kind of organisation."""

    code = "bad_role"


def check_character(first_17: str) -> str:
    """Return the check character of 17 characters. Source: GB 32100-2015 annex A (weights 3^i mod 31)."""
    total = sum(USCC_LETTERS.index(letter) * pow(3, place, 31) for place, letter in enumerate(first_17))
    return USCC_LETTERS[(31 - total % 31) % 31]


def check_uscc(code: str, *, production: bool = False) -> str:
    """Return the code, upper-case, if it is a well-formed 18-character credit code.

    Raises:
        BadCreditCodeError: wrong length or characters, wrong check character, or a demonstration code in production.
    """
    code = unicodedata.normalize("NFKC", code).strip().upper()
    shown = code[:24]
    if not _USCC.fullmatch(code):
        raise BadCreditCodeError(
            f"'{shown}' is not a unified social credit code: 18 characters, digits and capital letters without "
            "I O S V Z, six digits from the third. Copy it from the business licence.",
            f"“{shown}”不是统一社会信用代码：应为 18 位数字与大写字母（不含 I O S V Z）。请按营业执照填写。",
            field="uscc",
        )
    expected = check_character(code[:17])
    if code[17] != expected:
        raise BadCreditCodeError(
            f"The check character of '{shown}' is '{code[17]}', it should be '{expected}'. One character is mistyped.",
            f"“{shown}”的校验码为“{code[17]}”，应为“{expected}”。请检查是否输错。",
            field="uscc",
        )
    if production and is_demo_uscc(code):
        raise BadCreditCodeError(
            f"'{shown}' starts with {DEMO_USCC_PREFIX}, the prefix of demonstration firms; production refuses it.",
            f"“{shown}”为演示代码（前缀 {DEMO_USCC_PREFIX}），正式环境不予受理。",
            field="uscc",
        )
    return code


def is_demo_uscc(code: str) -> bool:
    """Tell whether a code belongs to a demonstration firm."""
    return code.startswith(DEMO_USCC_PREFIX)


def make_demo_uscc(serial: int) -> str:
    """Return the demonstration code of a serial number from 0 to 99999, check character included."""
    if not 0 <= serial <= 99_999:
        raise ValueError(f"serial {serial} is out of 0..99999")
    first_17 = f"{DEMO_USCC_PREFIX}{serial:05d}"
    return first_17 + check_character(first_17)


def check_slug(slug: str, *, reserved: bool = False) -> str:
    """Return the slug if it may lead public names such as `slug/model`; the operator's own may be a reserved word.

    Raises:
        BadSlugError: other characters, more than 40 of them, or a reserved word.
    """
    if not SLUG.fullmatch(slug):
        raise BadSlugError(
            f"'{slug[:60]}' cannot be a short name: 1 to 40 of a-z, 0-9 and '-', no '-' at the ends.",
            f"“{slug[:60]}”不能作为短名：1 至 40 个小写字母、数字或“-”，首尾不能是“-”。",
            field="slug",
        )
    if slug in RESERVED_SLUGS and not reserved:
        raise BadSlugError(f"'{slug}' is reserved. Choose another short name.", f"“{slug}”为保留名。", field="slug")
    return slug


def suggest_slug(name: str, uscc: str) -> str:
    """Return a slug from the ASCII part of a name; a name without any gets `org-` and the code's last eight."""
    words = re.findall(r"[a-z0-9]+", unicodedata.normalize("NFKC", name).lower())
    slug = "-".join(words)[:40].strip("-")
    return slug if len(slug) >= 3 and slug not in RESERVED_SLUGS else f"org-{uscc[-8:].lower()}"


def normalise_email(email: str) -> str:
    """Return the address as it is stored and compared: NFKC, lower-case.

    Raises:
        BadEmailError: it has not the shape name@host.
    """
    email = unicodedata.normalize("NFKC", email).strip().lower()
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise BadEmailError(
            f"'{email[:60]}' is not an e-mail address of the shape name@host (254 characters at most).",
            f"“{email[:60]}”不是有效的邮箱地址（name@host，最多 254 个字符）。",
            field="email",
        )
    return email


def normalise_password(password: str) -> str:
    """Return the password in NFKC, so that full-width digits match.

    Raises:
        BadPasswordError: shorter than 8 characters, longer than 1,024 bytes, or with NUL.
    """
    if len(password) <= MAX_PASSWORD_BYTES:
        password = unicodedata.normalize("NFKC", password)
        size_bytes = len(password.encode("utf-8", "surrogatepass"))
        if len(password) >= MIN_PASSWORD_CHARACTERS and size_bytes <= MAX_PASSWORD_BYTES and "\0" not in password:
            return password
    raise BadPasswordError(
        f"A password has {MIN_PASSWORD_CHARACTERS} characters to {MAX_PASSWORD_BYTES} bytes and no NUL; this has "
        f"{len(password)} characters.",
        f"密码须为 {MIN_PASSWORD_CHARACTERS} 个字符至 {MAX_PASSWORD_BYTES} 字节，现为 {len(password)} 个字符。",
        field="password",
    )


def check_role(kind: OrganisationKind, role: Role) -> Role:
    """Return the role if people of that kind of organisation may have it.

    Raises:
        BadRoleError: an operator or auditor outside the operator's or authority's own organisation, or the reverse.
    """
    fits = role in _PUBLIC_ROLES if kind in PUBLIC_KINDS else role is FIRST_ROLE[kind]
    if fits:
        return role
    allowed = ", ".join(sorted(_PUBLIC_ROLES)) if kind in PUBLIC_KINDS else FIRST_ROLE[kind]
    raise BadRoleError(
        f"Role '{role}' does not fit an organisation of kind '{kind}'; it allows {allowed}.",
        f"“{kind}”类机构不能有“{role}”角色；可选：{allowed}。",
        field="role",
    )
