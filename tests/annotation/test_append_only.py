"""The audit log and the promotions can't be rewritten."""

import pytest
from django.db import DatabaseError, transaction

from annotation.models import AuditEntry

pytestmark = pytest.mark.django_db


def test_the_database_refuses_to_change_an_audit_entry():
    entry = AuditEntry.objects.create(action="project.create")
    with pytest.raises(DatabaseError, match="append only"), transaction.atomic():
        AuditEntry.objects.filter(pk=entry.pk).update(action="nothing.happened")


def test_the_model_refuses_to_change_or_delete_an_audit_entry():
    entry = AuditEntry.objects.create(action="project.create")
    with pytest.raises(TypeError, match="never changed"):
        entry.save()
    with pytest.raises(TypeError, match="never deleted"):
        entry.delete()
