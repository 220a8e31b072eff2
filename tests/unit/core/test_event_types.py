"""The catalogue knows the products' own names, however they are spelled."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event_types import (
    ANY,
    UNPARSED,
    UNTYPED,
    Catalogue,
    EventType,
    normal_key,
    separate_words,
)
from tests.support.events.products import CATALOGUE

ALM = """
Account Owner Changed · Account Provisioned · Account Requires Renewal · Account Secret ID changed
· End of Life Notification · External Groups Disabled · New External User · New Synced User ·
Provision Approval Step Changed · Provision State Changed · Provision Template State Changed ·
Remote Worker Integration Access Error · Request State Changed · User Disabled by AD User Sync
"""
"""As the product's page has them."""

TYPES = CATALOGUE.types


def test_alm_types_are_the_products_own_word_for_word() -> None:
    expected = [" ".join(name.split()) for name in ALM.split("·")]
    assert sorted(known.name for known in TYPES if known.product == "alm") == sorted(expected)


def test_catalogue_lists_any_and_the_relays_own_types() -> None:
    listed = {known.name for known in CATALOGUE.types}
    assert {ANY, UNPARSED, UNTYPED} <= listed


def test_every_lightrun_group_has_types() -> None:
    groups = {known.category for known in TYPES if known.product == "lightrun"}
    assert groups == {"user-management", "configuration", "runtime-access", "session"}


@pytest.mark.parametrize("known", TYPES, ids=lambda known: known.name)
def test_every_type_can_be_shown_and_judged(known: EventType) -> None:
    assert known.description
    assert not known.description.endswith(".")
    assert 0 <= known.severity <= 10
    assert re.fullmatch("[a-z]+(-[a-z]+)*", known.category)


def test_no_two_types_share_a_key() -> None:
    assert len({normal_key(known.name) for known in TYPES}) == len(TYPES)


def test_a_severity_out_of_range_is_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="Far Too Bad"):
        EventType("Far Too Bad", severity=11)


@pytest.mark.parametrize(
    "spelled",
    [
        "Account Secret ID changed",
        "Account Secret ID Changed",
        "account secret id changed",
        "  ACCOUNT   SECRET\tID CHANGED ",
        "account_secret_id_changed",
        "ACCOUNT-SECRET-ID-CHANGED",
        "accountSecretIDChanged",
        "account.secret.id/changed",
        "account\u2013secret\u00a0id changed",
    ],
)
def test_a_name_is_found_however_it_is_spelled(spelled: str) -> None:
    found = CATALOGUE.find(spelled)
    assert found is not None
    assert found.name == "Account Secret ID changed"
    assert CATALOGUE.canonical(spelled) == "Account Secret ID changed"


@pytest.mark.parametrize("name", ["", " ", "Coffee Served", "Account", "***", "Zugriff geändert"])
def test_an_unknown_name_stays_as_it_is(name: str) -> None:
    assert CATALOGUE.find(name) is None
    assert CATALOGUE.canonical(name) == name


@pytest.mark.parametrize(
    ("one", "other"),
    [("की", "का"), ("***", "---"), ("ก่", "ก้"), ("Äther", "Ather"), ("User 1", "User 2")],
)
def test_names_that_differ_in_more_than_case_and_spacing_have_different_keys(
    one: str, other: str
) -> None:
    assert normal_key(one) != normal_key(other)


def test_composed_and_decomposed_letters_are_the_same_name() -> None:
    assert normal_key("Zugriff geändert") == normal_key("zugriff gea\u0308ndert")


@given(st.sampled_from(TYPES), st.randoms(use_true_random=False))
def test_case_and_separators_never_matter(known: EventType, random: object) -> None:
    pick = random.choice  # type: ignore[attr-defined]  # hypothesis types `randoms` as object
    spelled = "".join(pick([c.lower(), c.upper()]) + pick(["", " ", "_", "-"]) for c in known.name)
    assert CATALOGUE.find(spelled) is known


@given(st.text())
def test_any_text_at_all_is_a_name(text: str) -> None:
    found = CATALOGUE.find(text)
    assert CATALOGUE.canonical(text) == (text if found is None else found.name)
    assert normal_key(text) or not text


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("userLoggedIn", "user logged in"),
        ("USER_LOGGED-in", "user logged in"),
        ("SSOConfigurationChanged", "sso configuration changed"),
        ("user.login", "user login"),
        ("User * ", "user "),
    ],
)
def test_words_end_at_separators_and_humps(text: str, parted: str) -> None:
    assert separate_words(text) == parted


def test_declared_types_are_known_beside_the_built_in_ones() -> None:
    door = EventType("Door Opened", category="building", severity=6)
    catalogue = Catalogue([door])
    assert catalogue.find("door_opened") is door
    assert catalogue.types[-1] is door
    assert "building" in catalogue.categories
    assert catalogue.find(UNPARSED) is not None


def test_a_declared_type_replaces_its_built_in_namesake_in_its_place() -> None:
    louder = EventType("User logged in", category="session", severity=9)
    catalogue = Catalogue([*TYPES, louder])
    assert catalogue.find("User Logged In") is louder
    assert catalogue.canonical("USER LOGGED IN") == "User logged in"
    assert len(catalogue.types) == len(TYPES)


def test_the_category_of_any_is_none_to_filter_by() -> None:
    assert "any" not in CATALOGUE.categories
    assert {"request", "runtime-access", "session", "relay"} <= CATALOGUE.categories


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Acount Provisoned", "Account Provisioned"),
        ("account provision", "Account Provisioned"),
        ("Any Audit Records", ANY),
        ("category:sesion", "category:session"),
        ("runtime access", "category:runtime-access"),
        ("qqqqqqqqqqq", None),
        ("", None),
    ],
)
def test_nearest_says_what_was_most_likely_meant(written: str, meant: str | None) -> None:
    assert CATALOGUE.nearest(written) == meant


def test_nearest_knows_declared_types() -> None:
    assert Catalogue([EventType("Door Opened")]).nearest("dor opend") == "Door Opened"
