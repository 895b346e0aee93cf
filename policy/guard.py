"""What happens when a step's numbers are not finite: they never reach the weights."""

import json
from collections.abc import Mapping
from typing import Any

from policy.checkpoint import Checkpoint
from policy.config import Diverged
from policy.processes import Follower
from policy.run import Run

FOLDER = "skipped"
"""In the run's folder: step-NNNNNN.json for each step that was skipped."""
HEALTHY = "no step left out"
HELP = (
    "A loss, gradient or score was no finite number, so that step changed nothing. Once is chance; "
    "often, lower lr_peak or compute in fp32. What the step was made from lies in the run's "
    "folder `skipped`."
)
"""What the phase `skipped` of metrics.jsonl means, for whoever shows it."""


class Guard:
    """Counts skipped steps, and says when to go back to the last checkpoint.

    What a skipped step would have done from the bad number on is left out. After `most_in_a_row` of
    them the run goes back to the last checkpoint that a good step made, and on with the data that
    comes next, that since the checkpoint left out (as in arXiv:2204.02311, section 5.1). The same
    checkpoint a second time, or none: the run has diverged.
    """

    def __init__(self, run: Run | Follower, *, most_in_a_row: int) -> None:
        self.run, self.most_in_a_row = run, most_in_a_row
        self.num_skipped = self.in_a_row = 0
        self.rolled_back_to = -1
        """Step of the last checkpoint gone back to; -1 = never."""

    def good_step(self) -> None:
        self.in_a_row = 0

    def skip(self, step: int, problem: Diverged, data: Mapping[str, Any]) -> Checkpoint | None:
        """Count and report one step; the checkpoint to go back to, None = just go on.

        data: what the step was made from, as plain JSON values, for whoever looks for the cause.
        Raises Diverged, from `problem`, where going back is of no use any more.
        """
        self.num_skipped += 1
        self.in_a_row += 1
        text = json.dumps({"step": step, "why": str(problem), **data}, ensure_ascii=False, indent=1)
        self.run.write_beside(f"{FOLDER}/step-{step:06d}.json", text)
        back = self._checkpoint(problem) if self.in_a_row >= self.most_in_a_row else None
        if back is not None:
            self.rolled_back_to, self.in_a_row = back.step, 0
        self.run.log_step(
            step,
            "skipped",
            num_skipped=self.num_skipped,
            in_a_row=self.in_a_row,
            rolled_back_to=self.rolled_back_to if back else -1,
        )
        return back

    def state(self) -> dict[str, int]:
        return {
            "num_skipped": self.num_skipped,
            "in_a_row": self.in_a_row,
            "rolled_back_to": self.rolled_back_to,
        }

    def restore(self, state: dict[str, int]) -> None:
        self.num_skipped = state["num_skipped"]
        self.in_a_row = state["in_a_row"]
        self.rolled_back_to = state["rolled_back_to"]

    def _checkpoint(self, problem: Diverged) -> Checkpoint:
        good = (each for each in self.run.checkpoints() if each.state["guard"]["in_a_row"] == 0)
        back = next(good, None)
        if back is None or back.step == self.rolled_back_to:
            again = "no checkpoint to go back to" if back is None else "again since the checkpoint"
            raise Diverged(
                f"{problem}, in {self.in_a_row} steps in a row and {again}; what they were made "
                f"from is in {self.run.directory / FOLDER}"
            ) from problem
        return back
