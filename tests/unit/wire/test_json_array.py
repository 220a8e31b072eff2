"""A batch as a JSON array: the elements as they are, in order, whatever stands around them."""

from __future__ import annotations

import json

import pytest

from siemrelay.wire.json_array import json_array


@pytest.mark.parametrize("count", range(4))
def test_an_array_has_its_elements_in_order(count: int) -> None:
    elements = [b'{"a":%d}' % n for n in range(count)]
    assert json.loads(json_array(elements)) == [{"a": n} for n in range(count)]


@pytest.mark.parametrize("count", range(4))
def test_an_array_stands_in_what_is_put_around_it(count: int) -> None:
    elements = [b"%d" % n for n in range(count)]
    around = json_array(elements, b'{"records":[', b'],"end":1}')
    assert json.loads(around) == {"records": [*range(count)], "end": 1}


def test_an_array_leaves_the_messages_as_they_were() -> None:
    elements = [b"1", b"2"]
    json_array(elements)
    assert elements == [b"1", b"2"]
