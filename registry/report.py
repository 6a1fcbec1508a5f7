"""The outcome of an upload gate: every check with its finding in both languages and what to do.

It leaves the rules to the gates and the showing to the pages.
"""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from registry.errors import RegistryError

_MAX_CHARS = 600


class Severity(StrEnum):
    """What a failed check means: the upload is refused, or goes on with a warning."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding; `name` is the stable id of the rule, `subject` the file, key or tensor."""

    name: str
    passed: bool
    message_zh: str
    message_en: str
    fix_zh: str = ""
    fix_en: str = ""
    subject: str = ""
    severity: Severity = Severity.REFUSE


@dataclass(slots=True)
class Report:
    """All findings of one gate, in the order of its rules."""

    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing refuses the upload; warnings do not."""
        return not self.refusals

    @property
    def refusals(self) -> list[Check]:
        """The failed checks that refuse."""
        return [check for check in self.checks if not check.passed and check.severity is Severity.REFUSE]

    @property
    def warnings(self) -> list[Check]:
        """The failed checks that only warn."""
        return [check for check in self.checks if not check.passed and check.severity is Severity.WARN]

    def as_dict(self) -> dict[str, object]:
        """Return the report ready for JSON."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}

    def accept(self, name: str, zh: str, en: str, *, subject: str = "") -> None:
        """Note a rule that held."""
        self._add(Check(name=name, passed=True, message_zh=zh, message_en=en, subject=subject))

    def reject(self, name: str, zh: str, en: str, *, fix_zh: str, fix_en: str, subject: str = "") -> None:
        """Note a rule that did not hold."""
        check = Check(name=name, passed=False, message_zh=zh, message_en=en, subject=subject)
        self._add(replace(check, fix_zh=fix_zh, fix_en=fix_en))

    def warn(self, name: str, zh: str, en: str, *, fix_zh: str, fix_en: str, subject: str = "") -> None:
        """Note something odd that does not refuse."""
        check = Check(name=name, passed=False, message_zh=zh, message_en=en, subject=subject)
        self._add(replace(check, fix_zh=fix_zh, fix_en=fix_en, severity=Severity.WARN))

    def reject_error(self, name: str, error: RegistryError) -> None:
        """Note the coded error of a reader; its text already says what to do."""
        self.reject(name, error.zh, error.en, fix_zh="", fix_en="", subject=error.field or "")

    def failed(self, name: str) -> bool:
        """Return whether a rule of this id has a refusal."""
        return any(check.name == name for check in self.refusals)

    def _add(self, check: Check) -> None:
        zh, en, subject = (_printable(text) for text in (check.message_zh, check.message_en, check.subject))
        self.checks.append(replace(check, message_zh=zh, message_en=en, subject=subject))


def _printable(text: str) -> str:
    # Names of strangers may hold bytes that are no UTF-8, or control characters; rows and pages take neither.
    encoded = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in encoded)[:_MAX_CHARS]
