"""Why a row or a file isn't imported, in the reader's language: the sentences that importers make
most. One that is none of these is shown as it was said."""

from django.utils.translation import gettext_lazy as _

from annotation.faults import Known
from annotation.faults import in_words as words_of

BROKEN = _("%(what)s, line %(line)s: %(said)s. Nothing was imported; was it uploaded to its end?")
KNOWN: Known = [
    (
        r"(?P<what>.+), line (?P<line>\d+): (?P<said>.+)\. Nothing was imported; was it "
        r"uploaded to its end\?",
        BROKEN,
    ),
    (
        r"Not one of the (?P<count>[\d,]+) rows can be imported as (?P<format>\S+); line "
        r"(?P<line>\d+): (?P<said>.+)\.",
        _("Not one of the %(count)s rows can be imported as %(format)s; line %(line)s: %(said)s."),
    ),
    (
        r"Its worker vanished (?P<count>\d+) times; it is not tried again\.",
        _("Its worker vanished %(count)s times; it is not tried again."),
    ),
    (r"the last row breaks off", _("the last row breaks off")),
    (
        r"the gzip file is broken from here on: (?P<said>.*)",
        _("the gzip file is broken from here on: %(said)s"),
    ),
    (
        r"the table is broken from here on: (?P<said>.*)",
        _("the table is broken from here on: %(said)s"),
    ),
    (
        r"the Parquet file is broken from here on: (?P<said>.*)",
        _("the Parquet file is broken from here on: %(said)s"),
    ),
    (
        r"the array breaks off here: no closing bracket",
        _("the array breaks off here: no closing bracket"),
    ),
    (
        r"the row has (?P<count>[\d,]+) bytes, more than (?P<most>[\d,]+)",
        _("the row has %(count)s bytes, more than %(most)s"),
    ),
    (
        r"a line has more than (?P<most>[\d,]+) bytes",
        _("a line has more than %(most)s bytes"),
    ),
    (
        r"the row has (?P<count>\d+) cells, the header (?P<most>\d+)",
        _("the row has %(count)s cells, the header %(most)s"),
    ),
    (
        r"not JSON at character (?P<at>[\d,]+): the row begins (?P<seen>.*)",
        _("not JSON at character %(at)s: the row begins %(seen)s"),
    ),
    (r"not JSON: a number in it is too long", _("not JSON: a number in it is too long")),
    (r"not JSON: (?P<name>\S+) is no JSON number", _("not JSON: %(name)s is no JSON number")),
    (r"not JSON: (?P<said>.*)", _("not JSON: %(said)s")),  # of accounts that were kept before
    (r"not a JSON object: (?P<seen>.*)", _("not a JSON object: %(seen)s")),
    (
        r"no field (?P<fields>\S+(?: and no field \S+)*); the row has (?P<has>.*)",
        _("no field %(fields)s; the row has %(has)s"),
    ),
    (r"(?P<name>.+) is empty", _("%(name)s is empty")),
    (r"(?P<name>\S+) must be a text: (?P<seen>.*)", _("%(name)s must be a text: %(seen)s")),
    (r"(?P<name>\S+) must be a list: (?P<seen>.*)", _("%(name)s must be a list: %(seen)s")),
    (
        r"(?P<name>\S+) must be one of (?P<known>.*): (?P<value>.*)",
        _("%(name)s must be one of %(known)s: %(value)s"),
    ),
    (
        r"completions (?P<one>\d+) and (?P<other>\d+) are identical: (?P<seen>.*)",
        _("completions %(one)s and %(other)s are identical: %(seen)s"),
    ),
    (
        r"annotator (?P<name>.+) has answered this comparison otherwise",
        _("annotator %(name)s has answered this comparison otherwise"),
    ),
]


def in_words(reason: str) -> str:
    """The sentence in the language in force; in English it is what was said."""
    return words_of(reason, KNOWN)
