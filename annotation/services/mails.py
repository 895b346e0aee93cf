"""Mails to a project's admins: owed in the transaction of what they tell of, sent by a worker.

A mail server that is away costs nobody anything but the mail's coming later: what failed is tried
again after 1, 4, 16 ... minutes, MOST_TRIES times in all. Whoever has no address gets none.
"""

import logging
import smtplib
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db.models import F
from django.utils import timezone
from django.utils.translation import override

from annotation.mails import text_of
from annotation.models import Mail, MailKind, Membership, Project, Role

MOST_TRIES = 6
FIRST_PAUSE = timedelta(minutes=1)
AT_ONCE = 20
"""Sent between two other tasks of the worker."""
OF_ONE_MAIL = (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)
"""The server is there and takes this one not."""

log = logging.getLogger(__name__)


def owe_admins(*, project: Project, kind: MailKind, event: str, **facts: Any) -> None:
    """Owe a mail to each admin with an address; call it inside the transaction of the event.

    event: what it tells of, once for ever. Nothing is owed where no mail server is configured.
    """
    if not settings.MAILS:
        return
    admins = Membership.objects.filter(project=project, role=Role.ADMIN, user__is_active=True)
    Mail.objects.bulk_create(
        [
            Mail(
                project=project,
                user_id=user_id,
                kind=kind,
                event=event,
                facts=facts,
                next_try_at=timezone.now(),
            )
            for user_id in admins.exclude(user__email="").values_list("user_id", flat=True)
        ],
        ignore_conflicts=True,
    )


def send_waiting(now: datetime | None = None) -> int:
    """Send what is owed and due, the oldest first; how many went.

    A mail is taken by an update of its row, so that two workers never send one.
    """
    now = now or timezone.now()
    due = Mail.objects.filter(sent_at=None, tries__lt=MOST_TRIES, next_try_at__lte=now)
    sent = 0
    for mail in due.select_related("project", "user").order_by("next_try_at", "pk")[:AT_ONCE]:
        pause = FIRST_PAUSE * 4**mail.tries
        taken = Mail.objects.filter(pk=mail.pk, sent_at=None, tries=mail.tries)
        if not taken.update(tries=F("tries") + 1, next_try_at=now + pause):
            continue
        try:
            _send(mail)
        except OF_ONE_MAIL as error:
            log.warning("Mail %s was not taken: %s", mail.pk, error)
        except OSError as error:  # smtplib's own are among these
            log.warning("No mail can be sent just now: %s", error)
            due.update(next_try_at=now + FIRST_PAUSE)  # or each would wait for the server in turn
            break
        else:
            Mail.objects.filter(pk=mail.pk).update(sent_at=timezone.now())
            sent += 1
    return sent


def _send(mail: Mail) -> None:
    with override(mail.user.language or settings.LANGUAGE_CODE):
        subject, text = text_of(mail)
    send_mail(subject, text, settings.DEFAULT_FROM_EMAIL, [mail.user.email])
