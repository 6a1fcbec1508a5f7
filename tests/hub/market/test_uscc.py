"""Unified social credit codes: real vectors, every single mistyped character, demonstration codes."""

import pytest

from hub.organisations.rules import (
    DEMO_USCC_PREFIX,
    USCC_LETTERS,
    BadCreditCodeError,
    BadSlugError,
    check_slug,
    check_uscc,
    is_demo_uscc,
    make_demo_uscc,
    suggest_slug,
)

PUBLISHED = (
    "91350100M000100Y43",  # the example of GB 32100-2015 itself
    "914403001922038216",
    "9144030071526726XG",
    "91330100799655058B",
    "91110000802100433B",
)


@pytest.mark.parametrize("code", PUBLISHED)
def test_published_codes_pass(code: str) -> None:
    assert check_uscc(code) == code
    assert check_uscc(f" {code.lower()} ", production=True) == code


@pytest.mark.parametrize("code", PUBLISHED)
def test_every_single_wrong_character_is_refused(code: str) -> None:
    tried = 0
    for place in range(18):
        for letter in USCC_LETTERS:
            if letter != code[place]:
                tried += 1
                with pytest.raises(BadCreditCodeError):
                    check_uscc(code[:place] + letter + code[place + 1 :])
    assert tried == 18 * 30


@pytest.mark.parametrize(
    "code",
    ["", "9135", "91350100M000100Y4I", "91350100M000100Y433", "9135010OM000100Y43", "91350100M000100Y4\x00", "９" * 17],
)
def test_malformed_codes_are_refused_with_value_and_limit(code: str) -> None:
    with pytest.raises(BadCreditCodeError, match="18 characters") as caught:
        check_uscc(code)
    assert caught.value.field == "uscc"


def test_full_width_digits_are_read_as_digits() -> None:
    assert check_uscc("９１350100M000100Y43") == "91350100M000100Y43"


def test_wrong_check_character_names_the_right_one() -> None:
    with pytest.raises(BadCreditCodeError, match="is '4', it should be '3'"):
        check_uscc("91350100M000100Y44")


@pytest.mark.parametrize("serial", [0, 1, 42, 99_999])
def test_demonstration_codes_pass_and_production_refuses_them(serial: int) -> None:
    code = make_demo_uscc(serial)
    assert check_uscc(code) == code
    assert code.startswith(DEMO_USCC_PREFIX)
    assert is_demo_uscc(code)
    with pytest.raises(BadCreditCodeError, match="production refuses"):
        check_uscc(code, production=True)


def test_serials_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"100000 is out of 0\.\.99999"):
        make_demo_uscc(100_000)


@pytest.mark.parametrize("slug", ["-a", "a-", "A", "a_b", "", "a" * 41, "admin", "莞", "a/b", "a@1"])
def test_bad_slugs_are_refused(slug: str) -> None:
    with pytest.raises(BadSlugError):
        check_slug(slug)


def test_reserved_slugs_are_the_operators() -> None:
    with pytest.raises(BadSlugError, match="reserved"):
        check_slug("guanmo")
    assert check_slug("guanmo", reserved=True) == "guanmo"


def test_slugs_are_suggested_from_the_name_or_the_code() -> None:
    code = make_demo_uscc(1)
    assert suggest_slug("莞华电子 Guanhua Electronics", code) == "guanhua-electronics"
    assert suggest_slug("东莞市某某有限公司", code) == f"org-{code[-8:].lower()}"
    assert suggest_slug("API", code) == f"org-{code[-8:].lower()}"
