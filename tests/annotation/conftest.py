"""Fixtures of the tests of the pages: a project with its people, and a browser for each."""

from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django.utils import translation

from annotation.models import User
from tests.pages_cast import Cast, make_cast


@pytest.fixture(autouse=True)
def nobodys_language() -> Iterator[None]:
    """What a Chinese page sets for its thread is not left to the next test."""
    yield
    translation.deactivate()


@pytest.fixture
def cast(db: None) -> Cast:
    """A project with people of every role."""
    return make_cast()


@pytest.fixture
def enter(db: None) -> Callable[[User], Client]:
    """A client that is signed in as a user."""

    def signed_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return signed_in
