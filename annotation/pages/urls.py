"""Routes of the pages: the whole public surface for people."""

from django.contrib.auth.views import LogoutView
from django.urls import include, path

from annotation.pages import (
    exports,
    home,
    jobs,
    label,
    members,
    overview,
    preferences,
    quality,
    versions,
)

in_project = [
    path("", overview.overview, name="overview"),
    path("live/", overview.live, name="overview-live"),
    path("rule/", overview.rule, name="rule"),
    path("auto-promote/", overview.auto_promote, name="auto-promote"),
    path("label/", label.label, name="label"),
    path("label/prefetch/", label.prefetch, name="label-prefetch"),
    path("label/<int:assignment_id>/submit/", label.submit, name="label-submit"),
    path("label/<int:assignment_id>/skip/", label.skip, name="label-skip"),
    path("label/<int:assignment_id>/renew/", label.renew, name="label-renew"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/start/", jobs.start, name="job-start"),
    path("jobs/<int:job_id>/", jobs.job, name="job"),
    path("jobs/<int:job_id>/live/", jobs.live, name="job-live"),
    path("jobs/<int:job_id>/cancel/", jobs.cancel, name="job-cancel"),
    path("jobs/<int:job_id>/metrics.csv", jobs.metrics_csv, name="job-metrics"),
    path("versions/", versions.versions, name="versions"),
    path("versions/<int:version_id>/", versions.version, name="version"),
    path("versions/<int:version_id>/promote/", versions.promote, name="version-promote"),
    path("slots/<slug:slot>/roll-back/", versions.roll_back, name="roll-back"),
    path("quality/", quality.quality, name="quality"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("preferences/<int:preference_id>/", preferences.preference, name="preference"),
    path("preferences/<int:preference_id>/void/", preferences.void, name="preference-void"),
    path("preferences/<int:preference_id>/edit/", label.edit, name="preference-edit"),
    path("export/", exports.export, name="export"),
    path("export/make/", exports.make, name="export-make"),
    path("members/", members.members, name="members"),
    path("members/add/", members.add, name="member-add"),
    path("members/<int:member_id>/change/", members.change, name="member-change"),
    path("members/<int:member_id>/remove/", members.remove, name="member-remove"),
    path("guideline/", members.guideline, name="guideline"),
    path("scheme/", members.scheme, name="scheme"),
    path("scheme/preview/", members.scheme_preview, name="scheme-preview"),
]
urlpatterns = [
    path("", home.home, name="home"),
    path("sign-in/", home.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("language/", home.language, name="language"),
    path("tokens/", home.tokens, name="tokens"),
    path("tokens/<int:token_id>/revoke/", home.revoke, name="token-revoke"),
    path("projects/new/", members.new_project, name="project-new"),
    path("p/<slug:slug>/", include(in_project)),
]
