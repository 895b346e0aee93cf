"""Gates: may a new version take the place of the one in force?

A verdict is numbers and a yes or no, kept in version.metrics["gate"]. A project that promotes by
itself puts a version that passed in force in the same transaction; else an admin decides, with the
numbers at hand. Everything is measured on dev: test is sealed.
"""

from collections.abc import Callable
from dataclasses import replace

from django.db import transaction

from annotation import verdicts
from annotation.errors import BadInput
from annotation.models import JobKind, MailKind, ModelVersion, Project, Slot
from annotation.services import audit, versions
from annotation.services.mails import owe_admins
from policy.config import BadInput as BadLaboratoryInput
from workers.launch import OUT_OF_REACH
from workers.policy_gate import judge_policy
from workers.reward_gate import judge_judge, judge_reward
from workers.verdict import Verdict


def judge_version(version_id: int) -> Verdict | None:
    """Run the gate of a version and keep its verdict; None if that was done already."""
    version = ModelVersion.objects.select_related(
        "job__project", "snapshot", "reference", "reward"
    ).get(pk=version_id)
    if "gate" in version.metrics or version.job is None:
        return None
    project = version.job.project
    slot = SLOTS.get(version.stage, Slot.POLICY)
    try:
        verdict = JUDGES[JobKind(version.stage)](version, project)
    except (BadInput, BadLaboratoryInput) as error:
        verdict = Verdict(passed=False, verdict="failed", why=str(error), numbers={})
    except OUT_OF_REACH:
        raise  # the next tick sends it again
    except Exception as error:
        _keep(version, project, slot, _broken(error))
        raise
    try:
        return verdict if _keep(version, project, slot, verdict) else None
    except OUT_OF_REACH:
        raise
    except Exception as error:
        # What was measured stands, and an admin may promote by it.
        failure = {"why": verdict.why, "error": f"{type(error).__name__}: {error}"}
        why = verdicts.PROMOTING_FAILED % failure
        try:
            _keep(version, project, slot, replace(verdict, why=why), promote=False)
        except OUT_OF_REACH:
            raise
        except Exception as unkept:  # the verdict itself can't be stored
            _keep(version, project, slot, _broken(unkept))
        raise


def _broken(error: Exception) -> Verdict:
    """Kept, or every tick would try and crash again; the error is raised beside it, for the log."""
    why = verdicts.GATE_FAILED % {"error": f"{type(error).__name__}: {error}"}
    return Verdict(passed=False, verdict="failed", why=why, numbers={})


def _keep(
    version: ModelVersion, project: Project, slot: str, verdict: Verdict, *, promote: bool = True
) -> bool:
    """Store a verdict and promote on a pass, together; False if another was quicker."""
    with transaction.atomic():
        locked = ModelVersion.objects.select_for_update().get(pk=version.pk)
        if "gate" in locked.metrics:
            return False
        locked.metrics = {**locked.metrics, "gate": verdict.as_json()}
        locked.save(update_fields=["metrics"])
        audit.record(
            action="version.gate",
            target=locked,
            project=project,
            actor=None,
            verdict=verdict.verdict,
            why=verdict.why,
        )
        if verdicts.outcome_of(verdict.as_json()) == "failed":
            owe_admins(
                project=project,
                kind=MailKind.GATE_REFUSED,
                event=f"gate:{locked.pk}",
                version=locked.name,
                version_id=locked.pk,
                why=verdict.why,
            )
        project.refresh_from_db()
        first_policy = slot == Slot.POLICY and verdict.verdict == "first"
        at_once = first_policy or slot == Slot.JUDGE  # which steers nothing
        wanted = promote and verdict.passed and (project.auto_promote or at_once)
        if wanted and versions.in_force(project, slot) != locked:  # else an admin was quicker
            versions.promote(
                project=project,
                slot=slot,
                version=locked,
                verdict=verdict.verdict,
                numbers=verdict.as_json(),
            )
    return True


def judge_sft(version: ModelVersion, project: Project) -> Verdict:
    """The first policy of a project goes in force at once; a later one is an admin's choice."""
    in_force = versions.in_force(project, Slot.POLICY)
    if in_force is None:
        return Verdict(passed=True, verdict="first", why=verdicts.FIRST_POLICY, numbers={})
    why = verdicts.SFT_BY_ADMIN % {"name": in_force.name}
    return Verdict(passed=False, verdict="unjudged", why=why, numbers={})


SLOTS: dict[str, Slot] = {JobKind.REWARD: Slot.REWARD, JobKind.JUDGE: Slot.JUDGE}
"""By stage; the others' is the policy's."""
JUDGES: dict[JobKind, Callable[[ModelVersion, Project], Verdict]] = {
    JobKind.SFT: judge_sft,
    JobKind.REWARD: judge_reward,
    JobKind.JUDGE: judge_judge,
    JobKind.PPO: judge_policy,
}
