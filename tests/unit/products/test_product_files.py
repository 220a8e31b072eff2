"""Every product's file: it is whole, and its words are those that the relay has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from siemrelay import registry
from siemrelay.config.describe import field_names
from siemrelay.config.option_models import source_model
from siemrelay.config.yaml_document import parse
from siemrelay.core.event import FIELDS
from siemrelay.core.event_types import normal_key
from siemrelay.formats.classify import classify
from siemrelay.products.product import BUILT_IN, ProductFile, Products, expanded, text_of

CONFIG = Path(__file__).parents[3] / "config"
ALIAS = ProductFile(summary="another", extends="alm", fields={"type": ["kind"]})


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_products_file_is_read_as_a_person_reads_it(name: str) -> None:
    document = parse(text_of(name))
    assert document.faults == []
    strict = ProductFile.model_validate(document.value)
    # Every value is a text to the quick parser: `no` and `0` must not differ.
    assert ProductFile.model_validate(yaml.load(text_of(name), yaml.BaseLoader)) == strict
    assert BUILT_IN[name].summary


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_products_types_can_be_shown_and_judged(name: str) -> None:
    types = BUILT_IN[name].types
    assert len({normal_key(known.name) for known in types}) == len(types)
    for known in types:
        assert known.description
        assert not known.description.endswith(".")
        assert re.fullmatch("[a-z]+(-[a-z]+)*", known.category), known


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_category_of_a_product_has_a_subject(name: str) -> None:
    without = {t.category for t in BUILT_IN[name].types if not classify("", t.category).subject}
    assert without == set()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_product_sets_only_what_a_source_has(name: str) -> None:
    for kind, options in BUILT_IN[name].sources.items():
        decoder: Any = options.get("decoder", registry.SOURCES[kind].decoder)
        assert {*options} <= {*field_names(source_model(kind, decoder))}


def test_the_guide_has_a_row_for_every_product_and_links_every_example() -> None:
    text = (CONFIG / "README.md").read_text()
    table = text[text.index("## Sources and products") : text.index("## Products of your own")]
    rows = re.findall(r"(?m)^\| (`.*?) \|", table)[1:]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted({*BUILT_IN} - {"generic"})
    linked = {CONFIG / link for link in re.findall(r"\]\((examples/[^)]+)\)", table)}
    assert {*(CONFIG / "examples" / "products").glob("*.yaml")} <= linked


def test_steps_with_a_bar_stand_for_every_path_the_first_step_first() -> None:
    assert [*expanded(["a|b.c|d", "e", "{f|g}"])] == ["a.c", "a.d", "b.c", "b.d", "e", "{f|g}"]


def test_a_product_has_its_own_spellings_first_and_falls_back_to_those_in_common_use() -> None:
    common = BUILT_IN["generic"].spellings
    assert BUILT_IN["alm"].spellings["target.name"][:3] == (
        "target.name", "accountName", "AccountName",
    )  # fmt: skip
    for field in FIELDS:
        assert {*common[field]} <= {*BUILT_IN["alm"].spellings[field]}
    assert BUILT_IN["journal"].spellings["message"] == ("MESSAGE",)


def test_an_operators_product_extends_another_and_replaces_its_namesake() -> None:
    products = Products({"hr": ALIAS, "alm": ALIAS})
    assert products["hr"].spellings["type"][:2] == ("kind", "type")
    assert products["alm"].types == BUILT_IN["alm"].types
    assert {*products} == {*BUILT_IN, "hr"}
    assert "hr" in products
    assert products != BUILT_IN
    assert products == Products({"hr": ALIAS, "alm": ALIAS})


@pytest.mark.parametrize("circle", [{"a": "b", "b": "a"}, {"a": "nobody"}, {"a": "a"}])
def test_a_product_that_extends_itself_or_nothing_is_refused(circle: dict[str, str]) -> None:
    products = Products(
        {name: ProductFile(summary="", extends=other) for name, other in circle.items()}
    )
    with pytest.raises(KeyError):
        products["a"]


def test_a_type_is_that_of_the_records_product_where_two_products_have_it() -> None:
    own = ProductFile(summary="", types={"session": {"User Created": (9, "Another one")}})
    products = Products({"mine": own})
    found = products.catalogue(["mine", "lightrun"], product="mine").find("user_created")
    assert found is not None
    assert (found.product, found.severity) == ("mine", 9)
    other = products.catalogue(["mine", "lightrun"], product="lightrun").find("user_created")
    assert other is not None
    assert other.product == "lightrun"
