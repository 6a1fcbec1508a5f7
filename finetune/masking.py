"""Private numbers and secrets in text: find them by their own check digits, and put a mask in their place.

Leaves what a finding means to the report. A pattern alone is not enough where a check digit exists.
"""

import re
from collections.abc import Callable, Mapping

_IDENTITY_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_IDENTITY_CHECKS = "10X98765432"
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"

PRIVATE: Mapping[str, re.Pattern[str]] = {
    "secret_found": re.compile(
        r"(?i:password|passwd|pwd|密码|口令|api[_ -]?key|secret|access[_ ]?token)\s*(?:[:：=]|是|为)\s*"
        r"[^\s，。；,;]{4,}"
        r"|\bsk-[A-Za-z0-9_-]{20,}|\bgm_[0-9a-f]{8,}_[A-Za-z0-9_-]{20,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
        r"|\bLTAI[A-Za-z0-9]{12,20}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"
    ),
    "pii_email": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}(?![\w-])"),
    "pii_identity_number": re.compile(
        r"(?<![\dA-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
    ),
    "pii_bank_card": re.compile(r"(?<![\d.])[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}(?:[ -]?\d{1,3})?(?!\d)"),
    "pii_phone": re.compile(r"(?<!\d)(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)"),
    "pii_number_plate": re.compile(
        rf"[{_PROVINCES}][A-HJ-NP-Z][·• ]?(?:[A-HJ-NP-Z0-9]{{4}}[A-HJ-NP-Z0-9挂学警]|[DF][A-HJ-NP-Z0-9]\d{{4}}"
        r"|\d{5}[DF])(?![A-Za-z0-9])"
    ),
}
MASKS: Mapping[str, str] = {
    "secret_found": "[密钥]",
    "pii_email": "[邮箱]",
    "pii_identity_number": "[身份证号]",
    "pii_bank_card": "[银行卡号]",
    "pii_phone": "[手机号]",
    "pii_number_plate": "[车牌号]",
}
# one cheap look at a text before the patterns: most rows hold nothing of the kind
_WORTH_A_LOOK = re.compile(
    rf"@|\d{{6}}|1[3-9]\d[- ]\d|(?i:passw|pwd|密码|口令|api.?key|secret|token)|sk-|gm_|AKIA|ASIA|LTAI|gh[pousr]_|xox"
    rf"|BEGIN |eyJ|\d{{4}}[ -]\d{{4}}|[{_PROVINCES}][A-HJ-NP-Z]"
)


def find_private(text: str) -> list[str]:
    """Codes of what a text holds, in the order of the report."""
    if not _WORTH_A_LOOK.search(text):
        return []
    return [code for code in PRIVATE if any(_is_real(code, found[0]) for found in PRIVATE[code].finditer(text))]


def mask(text: str, code: str) -> str:
    """The text with every value of one code masked."""
    return PRIVATE[code].sub(lambda found: MASKS[code] if _is_real(code, found[0]) else found[0], text)


def mask_private(text: str) -> str:
    """The text with everything private masked; what a cut at the end left of a number is masked too."""
    for code in find_private(text):
        text = mask(text, code)
    return re.sub(r"\d{7,}(?=…$)", "[…]", text)


def is_identity_number(text: str) -> bool:
    """Whether the last of 18 characters is the check character of GB 11643-1999."""
    total = sum(weight * int(digit) for weight, digit in zip(_IDENTITY_WEIGHTS, text[:17], strict=True))
    return _IDENTITY_CHECKS[total % 11] == text[17].upper()


def is_bank_card(text: str) -> bool:
    """Whether 16 to 19 digits (blanks and hyphens aside) pass Luhn's check (ISO/IEC 7812-1)."""
    digits = [int(one) for one in text if one.isdigit()]
    if not 16 <= len(digits) <= 19:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "pii_identity_number": is_identity_number,
    "pii_bank_card": is_bank_card,
}


def _is_real(code: str, text: str) -> bool:
    check = _CHECKS.get(code)
    return check is None or check(text)
