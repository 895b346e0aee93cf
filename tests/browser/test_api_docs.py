"""The browsable API page in a real browser, under the site's policy."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_page_lists_the_operations_and_calls_one(visitor, cast):
    visitor.sign_in(cast.labeler.username)
    visitor.visit("/api/docs/")
    visitor.wait_for(".opblock")
    assert "/api/projects/{slug}/claim" in visitor.text("#swagger-ui").replace("\u200b", "")

    def call(page):
        page.locator(".opblock-get .opblock-summary-control").first.click()
        page.locator(".try-out__btn").first.click()
        page.locator(".execute").first.click()
        page.wait_for_selector(".live-responses-table tr.response td.response-col_status")
        return page.inner_text(".live-responses-table tr.response td.response-col_status")

    assert visitor.do(call).startswith("200")
