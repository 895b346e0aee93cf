"""A sample job from claim to end; what it writes is said in workers/pairs.py and
workers/versus.py."""

from annotation.errors import BadInput
from annotation.services import jobs
from policy.config import BadInput as BadLaboratoryInput
from workers.beating import Beating, Interrupted
from workers.launch import OUT_OF_REACH
from workers.pairs import write_comparisons
from workers.training import fail_crashed, settle_interrupted, worker_name
from workers.versus import write_versus


def run_sample_job(job_id: int) -> None:
    """Run one attempt at the job, if it is to be had."""
    job = jobs.claim_job(job_id=job_id, worker=worker_name())
    if job is None:
        return
    try:
        with Beating.of(job) as beating:
            write = write_versus if "against" in job.inputs else write_comparisons
            result = write(job, beating)
        jobs.finish_job(job_id=job.pk, attempt=job.attempt, result=result)
    except Interrupted as interrupted:
        settle_interrupted(job, interrupted.pulse)
    except (BadInput, BadLaboratoryInput) as error:
        jobs.fail_job(job_id=job.pk, attempt=job.attempt, error=str(error), exit_code=2)
    except OUT_OF_REACH:
        raise  # left to the stale heartbeat: the next attempt follows the same plan
    except Exception as error:
        fail_crashed(job, error)
        raise
