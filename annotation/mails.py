"""What a mail says: subject and text, in the language in force."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext as _

from annotation.faults import in_words as fault_in_words
from annotation.models import JobKind, Mail, MailKind
from annotation.verdicts import in_words as verdict_in_words

LONGEST = 2000
"""Characters of an error or a verdict."""


def text_of(mail: Mail) -> tuple[str, str]:
    """(subject, text)."""
    facts: Mapping[str, Any] = {**mail.facts, "project": mail.project.name}
    subject, text, path = TEXTS[MailKind(mail.kind)](mail, facts)
    why = _("You get this because you are an admin of %(project)s.") % facts
    return " ".join(subject.split()), f"{text}\n\n{settings.SITE_URL}{path}\n\n-- \n{why}\n"


def _job_failed(mail: Mail, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    named = {**facts, "kind": JobKind(facts["job_kind"]).label}
    subject = _("%(project)s: job %(job)s (%(kind)s) failed") % named
    error = fault_in_words(facts["error"].strip())[:LONGEST]
    return subject, error, reverse("job", args=[mail.project.slug, facts["job"]])


def _gate_refused(mail: Mail, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    subject = _("%(project)s: the gate refused %(version)s") % facts
    why = verdict_in_words(facts["why"])[:LONGEST]
    return subject, why, reverse("version", args=[mail.project.slug, facts["version_id"]])


def _below_bar(mail: Mail, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    if facts["stopped"]:
        subject = _("%(project)s: %(annotator)s is below the bar and was stopped") % facts
    else:
        subject = _("%(project)s: %(annotator)s is below the bar and was warned") % facts
    text = _("Of the last %(of)s hidden checks %(held)s held.") % facts
    return subject, text, reverse("gold-person", args=[mail.project.slug, facts["annotator_id"]])


TEXTS = {
    MailKind.JOB_FAILED: _job_failed,
    MailKind.GATE_REFUSED: _gate_refused,
    MailKind.BELOW_BAR: _below_bar,
}
"""(subject, text, path of the page) by kind."""
