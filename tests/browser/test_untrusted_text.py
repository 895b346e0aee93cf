"""Text of models, users and annotators cannot act in a real browser."""

import pytest

from annotation.services.projects import new_guideline

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
EVIL = """<script>window.acted = 1; alert(1)</script>
<img src=x onerror="window.acted = 1"><svg onload="window.acted = 1"></svg>
<style>body { display: none }</style>
[click](javascript:window.acted=1) [data](data:text/html,<script>parent.acted=1</script>)
![beacon](https://beacon.example/x.png) <a href="javascript:window.acted=1">raw</a>
```py"onload="window.acted=1
x = "<img src=x onerror='window.acted = 1'>"
```
```html
<script>window.acted = 1</script><b class="c-k" onclick="window.acted = 1">
```
<form action="/sign-out/" method="post"><button>Free money</button></form>
<div hx-get="/tokens/" hx-trigger="load">htmx</div> {{ 7|add:7 }} <!-- gone -->
"""
ACTIVE = "script:not([src]), img, svg[onload], a[href^='javascript'], a[href^='data'], [onerror]"


def test_a_completion_that_attacks_is_text(visitor, cast):
    new_guideline(project=cast.project, texts={"en": EVIL, "zh-hans": EVIL}, by=cast.admin)
    cast.ask(EVIL, [EVIL, "Harmless.", EVIL + "again"])
    requested: list[str] = []
    visitor.do(lambda page: page.on("request", lambda request: requested.append(request.url)))
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.keys("d")
    visitor.wait_for("mark")
    look(visitor)
    visitor.keys("w")
    visitor.wait_for(".instead .sign")
    look(visitor)
    visitor.keys("w", "1", "2", "3", "n")
    visitor.do(lambda page: page.fill("textarea", EVIL))
    visitor.keys("Control+Enter")
    visitor.wait_for(".empty")
    look(visitor)
    for path in ("preferences/", "preferences/1/"):
        number = cast.project.preferences.get().pk
        visitor.visit(f"/p/shop/{path.replace('1', str(number))}")
        look(visitor)
        assert "window.acted = 1" in visitor.text("main")
    assert not [url for url in requested if not url.startswith(visitor.base)]
    assert not [url for url in requested if "/tokens/" in url]


def look(visitor) -> None:
    """Nothing ran, nothing is armed, the page is visible."""
    assert visitor.dialogs == []
    assert visitor.do(lambda page: page.evaluate("window.acted")) is None
    assert visitor.do(lambda page: page.locator(f"main :is({ACTIVE})").count()) == 0
    assert visitor.do(lambda page: page.locator("main").is_visible())
