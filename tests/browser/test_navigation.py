"""The menus of the navigation with a mouse, a finger and the keyboard."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
OPEN = ".topbar details[open] > summary"


def open_menus(page):
    """The names of the menus that are open."""
    return page.locator(OPEN).all_inner_texts()


def test_one_menu_is_open_and_closes_as_menus_do(visitor, cast):
    visitor.enter(cast.admin, "/p/shop/jobs/")

    def walk(page):
        seen = []
        for menu in ("Data", "Training"):
            page.click(f".topbar summary:text-is('{menu}')")
            seen.append(open_menus(page))
        page.keyboard.press("Escape")
        seen.append(open_menus(page))
        seen.append(page.evaluate("document.activeElement.textContent"))
        page.keyboard.press("Enter")
        seen.append(open_menus(page))
        page.click("h1")
        seen.append(open_menus(page))
        return seen

    assert visitor.do(walk) == [["Data"], ["Training"], [], "Training", ["Training"], []]


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_of_the_navigation_can_be_reached_by_hand(visitors, cast, width):
    """What a menu shows lies inside the window, above what is under it."""
    visitor = visitors(viewport={"width": width, "height": 800})
    visitor.enter(cast.admin, "/p/shop/")

    def walk(page):
        reached = []
        for menu in page.locator(".topbar nav details").all():
            for link in menu.locator("a").all():
                menu.locator("summary").click()
                box = link.bounding_box()
                assert box
                assert 0 <= box["x"] <= width - box["width"]
                address = link.get_attribute("href")
                link.click()  # refused by the browser where something lies over it
                page.wait_for_url(f"**{address}")
                reached.append(address)
        return reached

    assert len(visitor.do(walk)) == 18
