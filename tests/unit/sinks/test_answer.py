"""An HTTP answer as a person reads it."""

from __future__ import annotations

import pytest

from siemrelay.sinks.http.answer import Answer

NGINX = b"""<html>\r
<head><title>413 Request Entity Too Large</title></head>\r
<body>\r
<center><h1>413 Request Entity Too Large</h1></center>\r
<hr><center>nginx/1.22.1</center>\r
</body>\r
</html>"""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"text":"Invalid token",\n "code":4}', '{"text":"Invalid token", "code":4}'),
        (NGINX, "413 Request Entity Too Large 413 Request Entity Too Large nginx/1.22.1"),
        (b"\n<!DOCTYPE HTML><style>p {color: red}</style><!-- x --><p>Not&nbsp;here &amp; gone",
         "Not here & gone"),
        (b"<html><script>let a = 1;</script>off<p class='", "off"),
        (b"<html>" + b"<script>" * 100_000 + b"x", ""),
        (b"<error>no page</error>", "<error>no page</error>"),
        (b"a < b and <html>", "a < b and <html>"),
        (b"<html>&#27;[31mred", "[31mred"),
    ],
    ids=["json", "nginx", "style", "torn", "hostile", "xml", "text", "control"],
)  # fmt: skip
def test_a_page_is_shown_by_its_words_and_anything_else_as_it_is(body: bytes, text: str) -> None:
    assert Answer(500, {}, body).text == text
