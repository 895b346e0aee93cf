"""A study from claim to end: what each part of a project's votes did for its reward model.

    studies/<id>/attempt-<number>/
        features.safetensors   what the model's head sees of every completion in the snapshot
        labels.jsonl           batch and guideline version of every vote

Each attempt has a folder of its own, since one that fell silent may wake beside the next. It is
gone when the attempt ends; the figures stay in the row, and the scores that the features give stay
with their completions.
"""

import json
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from django.conf import settings

from annotation.errors import BadInput
from annotation.models import Split, Study
from annotation.services import studies, versions
from annotation.services.retraining import votes_that_train
from annotation.services.snapshots import freeze, path_of
from policy.comparisons import read_comparisons
from policy.config import BadInput as BadLaboratoryInput
from policy.config import config_from
from policy.run import device_from
from rewardmodel.anchors import Anchor
from rewardmodel.contributions import ContributionsConfig, contributions, read_labels
from rewardmodel.features import Backbone, Features, write_features
from workers.beating import Beating, Interrupted
from workers.datasets import axis_voted_on
from workers.launch import OUT_OF_REACH


def run_study(study_id: int) -> None:
    """Run one attempt at the study, if it is to be had."""
    study = studies.claim_study(study_id)
    if study is None:
        return
    of_study = Path(settings.ARTIFACTS_DIR) / "studies" / str(study.pk)
    folder = of_study / f"attempt-{study.attempt}"
    try:
        with Beating(partial(studies.study_heartbeat, study), name=f"study {study.pk}") as beating:
            _measure(study, folder, beating)
    except Interrupted:
        studies.release_study(study)  # where another has it by now this changes nothing
    except (BadInput, BadLaboratoryInput) as error:
        studies.fail_study(study, error=str(error))
    except OUT_OF_REACH:
        raise  # left to the stale heartbeat
    except Exception as error:
        studies.fail_study(study, error=f"The worker failed: {type(error).__name__}: {error}")
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another attempt's folder is in it, or it was never made
            of_study.rmdir()


def _measure(study: Study, folder: Path, beating: Beating) -> None:
    project, reward = study.project, study.reward
    defaults = project.job_defaults
    query = {
        "splits": [Split.TRAIN.value, Split.DEV.value],
        "annotators": votes_that_train(defaults.get("inputs", {}).get("reward", {})),
    }
    snapshot = freeze(project=project, kind="comparisons", query=query, by=study.by)
    if not snapshot.rows:
        raise BadInput("The project has no comparisons to learn from (train, dev).")
    data = path_of(snapshot)
    folder.mkdir(parents=True, exist_ok=True)
    labels = folder / "labels.jsonl"
    with labels.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in studies.labels_of(project))
    cached = folder / "features.safetensors"
    backbone = Backbone(versions.directory_of(reward), device_from("auto"))
    write_features(backbone, reward.sha256, data, cached)
    beating.check()
    features = Features.read(cached)
    studies.store_scores(reward, _scores(backbone, features, data))
    axis = defaults.get("reward", {}).get("axis") or axis_voted_on(project)
    result = contributions(
        config_from(ContributionsConfig, {"axis": axis}),
        features=features,
        data=data,
        labels=read_labels(labels),
        on_part=partial(_progress, beating),
    )
    studies.finish_study(study, snapshot=snapshot, result=result)


def _progress(beating: Beating, step: int, total: int) -> None:
    beating.progress(step, total, "refits")


def _scores(backbone: Backbone, features: Features, data: Path) -> dict[int, float]:
    """Completion -> the model's score, as it gives it to the text itself."""
    heads = features.scores(backbone.head.cpu().double())
    scale = backbone.scorer.scale
    scores = scale.scores(torch.tensor(list(heads.values()))[:, None])
    by_key = dict(zip(heads, scores, strict=True))
    found = {}
    for comparison in read_comparisons(data):
        for pk, text in zip(comparison.completion_ids, comparison.texts, strict=True):
            score = by_key.get(Anchor(comparison.prompt, text).sha256)
            if score is not None:
                found[int(pk)] = score
    return found
