"""The preference loss. N = completions in the batch, P = pairs of completions of one prompt."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_nats(scores: Tensor, pairs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the Bradley-Terry model, one number per pair, in nats.

    scores: (N,) float. pairs: (P, 2) long, indices into scores. targets: (P,) float in [0, 1], the
    share of votes that put the first of the pair above the second. With one vote this is
    `-log sigmoid(r_chosen - r_rejected)` (arXiv:2203.02155, section 3.5); with a share t it is
    `-t log sigmoid(d) - (1 - t) log sigmoid(-d)`, lowest at d = log(t / (1 - t)).
    Returns (P,). `logsigmoid` keeps it finite, and its gradient right, for any difference.
    """
    difference = scores[pairs[:, 0]] - scores[pairs[:, 1]]  # (P,)
    return -(targets * logsigmoid(difference) + (1 - targets) * logsigmoid(-difference))


def ranking_loss(
    scores: Tensor,
    pairs: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    num_comparisons: int,
    centring: float = 0.0,
) -> Tensor:
    """Mean over comparisons of the weighted mean of their pairs, in nats per comparison.

    weights: (P,) float, summing to 1 over the pairs of one comparison, so that K completions give
    K (K - 1) / 2 pairs but one vote in the mean (InstructGPT's 1 / C(K, 2), arXiv:2203.02155).
    num_comparisons: comparisons in the optimizer's batch, not in this piece of it; losses of the
    pieces then add up to the loss of the whole.
    centring: coefficient of the mean of (r_i + r_j) ** 2, which holds scores near zero
    (arXiv:2312.09244, equation 2); 0 leaves it out. Returns a scalar.
    """
    nats = pair_nats(scores, pairs, targets)
    if centring:
        nats = nats + centring * (scores[pairs[:, 0]] + scores[pairs[:, 1]]) ** 2
    return (weights * nats).sum() / num_comparisons
