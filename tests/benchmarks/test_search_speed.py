"""The benchmark of search still fills a ledger and asks what is found there."""

import importlib.util
import random
from itertools import islice
from pathlib import Path

import pytest

from annotation.models import SearchText
from annotation.services.search import Wanted, found
from tests.annotation.making import make_project

pytestmark = [pytest.mark.shared_data, pytest.mark.django_db]
SCRIPT = Path(__file__).with_name("search_speed.py")


def test_what_is_filled_in_is_found(shared_data):
    spec = importlib.util.spec_from_file_location("search_speed", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    project = make_project("many")
    pools, draw = benchmark.texts(shared_data), random.Random(0)
    benchmark.fill(project, pools, 60, draw)
    assert SearchText.objects.count() == 60
    text = project.comparisons.first().prompt.messages[0]["content"]
    assert found(project, Wanted(text=f'"{text.replace(chr(34), "")[:40]}')).exists()
    kinds = {kind for kind, _ in islice(benchmark.queries(pools, draw), 60)}
    assert kinds == {
        "a word", "two words", "a phrase of two", "2 Chinese characters", "3 Chinese characters"
    }  # fmt: skip
