"""The tasks of the generate and live queues, whose workers alone load torch (`-I` names this)."""

from annotation.models import JobKind
from annotation.services import jobs
from workers.celery import app
from workers.launch import shutting_down
from workers.live import answer_turn
from workers.promotion import judge_version
from workers.sampling import run_sample_job
from workers.scoring import score_open_comparisons
from workers.studying import run_study


@app.task
def run_sample(_job_id: int) -> None:
    """One attempt at the oldest sample job that may start, as run_training has it."""
    if shutting_down.is_set():
        return
    if job := jobs.startable_jobs().filter(kind=JobKind.SAMPLE).first():
        run_sample_job(job.pk)


@app.task
def judge(version_id: int) -> None:
    """The gate of one version."""
    if not shutting_down.is_set():
        judge_version(version_id)


@app.task
def score(project_id: int) -> None:
    """Scores that strategies go by."""
    if not shutting_down.is_set():
        score_open_comparisons(project_id)


@app.task
def study(study_id: int) -> None:
    """One attempt at a study of a project's votes."""
    if not shutting_down.is_set():
        run_study(study_id)


@app.task
def answer(turn_id: int) -> None:
    """One attempt at a turn of a chat."""
    if not shutting_down.is_set():
        answer_turn(turn_id)
