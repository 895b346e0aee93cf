"""What a frozen reward model's head sees of every completion, kept in a file for `refit`.

    python -m rewardmodel features --model DIR --data comparisons.jsonl --out features.safetensors
        [--anchors anchors.jsonl]

The file holds `features` (N, D) float32, the head's input where each completion ends, and `keys`
(N, 32) uint8, the hash of its prompt and text. It is written as it is computed, a window at a time.
N = different completions, D = the head's input width.
"""

import argparse
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from policy.backbone import score_model_from
from policy.comparisons import read_comparisons
from policy.config import BadInput, require
from policy.data import Message, content_hash
from policy.ensemble import Scored, is_ensemble
from policy.run import device_from
from policy.score_scale import score_head
from policy.scoring import Encoded, Scorer, TooLong, max_tokens_of, scores_of_forest
from rewardmodel.anchors import Anchor, Anchors, read_anchors

ROWS_AT_ONCE = 1024
"""Encoded, sorted by length and written together: bounds memory, saves padding."""
SCORES_AT_ONCE = 16384
"""Rows of a features file that are read and multiplied with a head together."""


class Backbone:
    """A frozen model and its head, the last matrix with one row."""

    def __init__(self, directory: Path | str, device: str) -> None:
        """directory: a reward model, a causal LM or an encoder. Raises BadInput."""
        require(
            not is_ensemble(directory), f"{directory} is an ensemble: its members have features"
        )
        self.model, self.tokenizer = score_model_from(directory, seed=0, device=device)
        head = score_head(self.model)
        require(head is not None, f"{directory} has no head of one row that could be fitted")
        assert head is not None
        self.head: nn.Linear = head
        self.scorer = Scorer(
            self.model, self.tokenizer, max_tokens=max_tokens_of(self.model, self.tokenizer)
        )

    @torch.inference_mode()
    def features(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(N, D) float32 on the CPU: the head's input for rows of ids, in order."""
        found = torch.empty(len(rows), self.head.in_features)
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            for places, forest in self.scorer.forests(rows):
                scores_of_forest(self.model, forest)
                found[places] = seen.pop().float().cpu()
        finally:
            handle.remove()
        return found


def write_features(
    backbone: Backbone, sha256: str, data: Path, out: Path, *, anchors: Anchors | None = None
) -> tuple[int, int]:
    """The features of every different completion of the file; (how many, how many too long).

    sha256: content hash of the model's directory, kept beside them. anchors: texts that `refit`
    will put the scores on, where they are not the data's own. The file appears when it is whole.
    """

    def texts() -> Iterator[Anchor]:
        yield from _completions(data)
        yield from anchors.items if anchors else ()

    keys = _fitting_keys(backbone.scorer, texts())
    left = [key for key, fits in keys.items() if fits]
    require(bool(left), f"{data} holds no completion that the model can take")
    count, width = len(left), backbone.head.in_features
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(out.name + ".part")
    try:
        with (
            staged.open("wb") as file,
            tqdm(total=count, desc="features", disable=not sys.stderr.isatty()) as bar,
        ):
            _write_header(file, count, width, sha256)
            for key in left:
                file.write(bytes.fromhex(key))
            for window in _windows(texts(), left):
                rows = [backbone.scorer.encode(one.prompt, one.text).ids for one in window]
                file.write(backbone.features(rows).numpy().astype("<f4").tobytes())
                bar.update(len(window))
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)
    return count, len(keys) - count


def _completions(data: Path) -> Iterator[Anchor]:
    for comparison in read_comparisons(data):
        for text in comparison.texts:
            yield Anchor(comparison.prompt, text)


def _fitting_keys(scorer: Scorer, texts: Iterable[Anchor]) -> dict[str, bool]:
    """Hash -> whether the model can take it, in the order of the texts."""
    keys: dict[str, bool] = {}
    for one in texts:
        if (key := one.sha256) not in keys:
            try:
                scorer.encode(one.prompt, one.text)
                keys[key] = True
            except TooLong:
                keys[key] = False
    return keys


def _windows(texts: Iterable[Anchor], left: Sequence[str]) -> Iterator[list[Anchor]]:
    """Those of the texts whose hashes are in `left`, in its order, each once."""
    waiting = iter(left)
    wanted = next(waiting, None)
    window: list[Anchor] = []
    for one in texts:
        if one.sha256 != wanted:
            continue
        window.append(one)
        wanted = next(waiting, None)
        if len(window) == ROWS_AT_ONCE:
            yield window
            window = []
    if window:
        yield window


def _write_header(file: BinaryIO, count: int, width: int, sha256: str) -> None:
    """The safetensors format: length of the header, header, then the tensors' bytes in order."""
    header = {
        "__metadata__": {"model_sha256": sha256},
        "keys": {"dtype": "U8", "shape": [count, 32], "data_offsets": [0, 32 * count]},
        "features": {
            "dtype": "F32",
            "shape": [count, width],
            "data_offsets": [32 * count, 32 * count + 4 * count * width],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


@dataclass(frozen=True, slots=True)
class Features:
    """A features file; its rows come from disk when they are asked for."""

    file: Any
    places: dict[str, int]
    """Hash of a completion -> its row."""
    model_sha256: str

    @classmethod
    def read(cls, path: Path) -> "Features":
        """Raises BadInput for a file that `features` has not written."""
        require(path.is_file(), f"there is no file {path}")
        try:
            file = safe_open(path, framework="pt")
            keys = file.get_tensor("keys").numpy()
            sha256 = file.metadata()["model_sha256"]
        except (SafetensorError, KeyError, TypeError) as error:
            raise BadInput(f"{path} is no file of features: {error}") from error
        places = {bytes(np.ascontiguousarray(key)).hex(): row for row, key in enumerate(keys)}
        return cls(file, places, sha256)

    def rows(self, places: Sequence[int]) -> Tensor:
        """(len(places), D) float32."""
        return self.file.get_tensor("features")[list(places)]

    def scores(self, head: nn.Linear) -> dict[str, float]:
        """Hash of each completion -> what this head, (1, D) and float64, says of it."""
        features = self.file.get_slice("features")
        count = len(self.places)
        with torch.inference_mode():
            found = [
                head(features[start : start + SCORES_AT_ONCE].double())[:, 0]
                for start in range(0, count, SCORES_AT_ONCE)
            ]
        return dict(zip(self.places, torch.cat(found).tolist(), strict=True))


class KnownScorer(Scorer):
    """A model whose scores of some texts are known without running it, as those of a new head are
    from features; it scores others as any model does.

    known: hash of a completion with its prompt -> score, before the scale that the model has come
    to since: its mean and deviation are taken out here.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_tokens: int, known: Mapping[str, float]
    ) -> None:
        super().__init__(model, tokenizer, max_tokens=max_tokens)
        self.known = known
        self.by_ids: dict[bytes, float] = {}

    def encode(self, prompt: Sequence[Message], completion: str) -> Encoded:
        encoded = super().encode(prompt, completion)
        score = self.known.get(Anchor(tuple(prompt), completion).sha256)
        if score is not None:
            self.by_ids[_packed(encoded.ids)] = score
        return encoded

    def score_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[float]:
        known = [self.by_ids.get(_packed(row)) for row in rows]
        others = [row for row, score in zip(rows, known, strict=True) if score is None]
        asked = iter(super().score_ids(others, batch_tokens) if others else ())
        mean, deviation = self.scale.mean, self.scale.deviation
        return [next(asked) if each is None else (each - mean) / deviation for each in known]

    def scored_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[Scored]:
        return [Scored(score) for score in self.score_ids(rows, batch_tokens)]


def _packed(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, required=True, help="reward model or language model directory"
    )
    parser.add_argument("--data", type=Path, required=True, help="comparisons or TRL rows, JSONL")
    parser.add_argument(
        "--anchors", type=Path, metavar="FILE", help="where refit is given one: its texts too"
    )
    parser.add_argument("--out", type=Path, required=True, help="safetensors file")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto by default")


def run_command(args: argparse.Namespace) -> int:
    require(args.data.is_file(), f"there is no file {args.data}")
    anchors = read_anchors(args.anchors) if args.anchors else None
    backbone = Backbone(args.model, device_from(args.device))
    count, too_long = write_features(
        backbone, content_hash(args.model), args.data, args.out, anchors=anchors
    )
    note = f", {too_long} too long for the model" if too_long else ""
    sys.stderr.write(f"features of {count} completions{note}\n")
    return 0
