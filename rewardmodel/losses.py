"""The losses of the reward model: what one answer of an annotator costs, in nats.

N = scores in the batch, P = pairs of completions of one prompt, Q = choices of one completion
from several, M = completions in the widest choice, J = judgments of one completion by itself,
L = levels of a rating. A score is a log-odds: everything here is unchanged when all scores of one
prompt move together, the judgments alone excepted.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

NOBODY = -1
"""Fills the rows of choices that are narrower than the widest."""


def pair_logprobs(difference: Tensor, log_nu: Tensor | float) -> Tensor:
    """Log-probabilities of (first better, tie, second better) by Davidson's model, (..., 3).

    P(first) : P(tie) : P(second) = e^(d/2) : nu : e^(-d/2), where d is the difference of the scores
    and nu > 0 says how readily annotators call a tie (Davidson 1970, JASA 65, 317-328, with e^score
    for its worths). Without the ties it is Bradley-Terry for any nu; nu -> 0 has none.
    """
    half = difference / 2
    tie = torch.as_tensor(log_nu, dtype=half.dtype, device=half.device).expand_as(half)
    return torch.log_softmax(torch.stack((half, tie, -half), dim=-1), dim=-1)


def softened(targets: Tensor, confidences: Tensor | float) -> Tensor:
    """Targets where each strict vote is right with this probability, and else its opposite.

    1 leaves them as they are; 1 - e is label smoothing by e (arXiv:2401.06080), best met at a
    difference of log((1 - e) / e); 1/2 makes every vote a coin. Ties stay ties. Same shape.
    """
    return 0.5 + (2 * confidences - 1) * (targets - 0.5)


def pair_nats(
    scores: Tensor,
    pairs: Tensor,
    targets: Tensor,
    *,
    margins: Tensor | None = None,
    ties: Tensor | None = None,
    log_nu: Tensor | float | None = None,
) -> Tensor:
    """Cross-entropy of the answers on each pair, (P,), in nats.

    scores: (N,) float. pairs: (P, 2) long, indices into scores. targets: (P,) float in [0, 1], the
    share of votes that put the first of the pair above the second, and half of those that tie them.
    With one vote this is `-log sigmoid(r_chosen - r_rejected)` (arXiv:2203.02155, section 3.5);
    with a share t it is `-t log sigmoid(d) - (1 - t) log sigmoid(-d)`, lowest at
    d = log(t / (1 - t)). `logsigmoid` keeps it, and its gradient, right for any difference.
    margins: (P,) what the first must be ahead by before it counts as ahead: d is the difference
    minus the margin (arXiv:2307.09288, equation 2).
    ties: (P,) float, the share of votes that tie the pair, with Davidson's log_nu; both or neither.
    """
    difference = scores[pairs[:, 0]] - scores[pairs[:, 1]]  # (P,)
    if margins is not None:
        difference = difference - margins
    return difference_nats(difference, targets, ties=ties, log_nu=log_nu)


def difference_nats(
    difference: Tensor,
    targets: Tensor,
    *,
    ties: Tensor | None = None,
    log_nu: Tensor | float | None = None,
) -> Tensor:
    """`pair_nats` as a function of the score differences, (P,); log_nu may be one or (P,)."""
    if ties is None or log_nu is None:
        return -(targets * logsigmoid(difference) + (1 - targets) * logsigmoid(-difference))
    logprobs = pair_logprobs(difference, log_nu)  # (P, 3)
    first, second = targets - ties / 2, 1 - targets - ties / 2
    return -(torch.stack((first, ties, second), dim=-1) * logprobs).sum(-1)


def choice_nats(
    scores: Tensor, winners: Tensor, contestants: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Plackett-Luce: what it costs that each winner was taken from its contestants, (Q,), in nats.

    P(i is the best of S) = e^s_i / sum of e^s_j over S; a ranking is one choice after the other,
    each from those that are left, and its log-probability their sum (Plackett 1975;
    arXiv:2305.18290, appendix A.3). winners: (Q,) long. contestants: (Q, M) long, the winner among
    them, NOBODY where there are fewer. smoothing: this much of the vote goes in equal parts to
    those not chosen. A choice from two is `pair_nats`, smoothed or not.
    """
    present = contestants != NOBODY  # (Q, M)
    drawn = torch.where(present, scores[contestants.clamp(min=0)], -torch.inf)  # (Q, M)
    total = drawn.logsumexp(-1)  # (Q,)
    chosen = scores[winners]  # (Q,)
    nats = total - chosen
    if not smoothing:
        return nats
    others = torch.where(present, drawn, 0.0).sum(-1) - chosen
    mean_of_others = others / (present.sum(-1) - 1)
    return (1 - smoothing) * nats + smoothing * (total - mean_of_others)


def level_logprobs(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Log-probabilities of each level of a rating, (J, L), lowest first.

    P(level >= k) = sigmoid(score - threshold_k), the cumulative logit of McCullagh (1980, JRSS B
    42). thresholds: (L - 1,) rising; one of them makes it yes or no, the logistic model.
    A level between two thresholds a < b has sigmoid(s - a) - sigmoid(s - b), here in the form
    sigmoid(s - a) sigmoid(b - s) (1 - e^(a - b)), which loses no digits.
    """
    over = scores[:, None] - thresholds  # (J, L - 1)
    lowest, highest = logsigmoid(-over[:, :1]), logsigmoid(over[:, -1:])
    gaps = thresholds[1:] - thresholds[:-1]  # (L - 2,)
    between = logsigmoid(over[:, :-1]) + logsigmoid(-over[:, 1:]) + torch.log(-torch.expm1(-gaps))
    return torch.cat((lowest, between, highest), dim=1)


def level_nats(scores: Tensor, levels: Tensor, thresholds: Tensor) -> Tensor:
    """What each rating costs, (J,), in nats. levels: (J,) long from 0; see level_logprobs."""
    return -level_logprobs(scores, thresholds).gather(1, levels[:, None]).squeeze(1)


def ranking_loss(
    scores: Tensor,
    pairs: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    num_comparisons: int,
    centring: float = 0.0,
    margins: Tensor | None = None,
    ties: Tensor | None = None,
    log_nu: Tensor | float | None = None,
) -> Tensor:
    """Mean over comparisons of the weighted mean of their pairs, in nats per comparison.

    weights: (P,) float, summing to 1 over the pairs of one comparison, so that K completions give
    K (K - 1) / 2 pairs but one vote in the mean (InstructGPT's 1 / C(K, 2), arXiv:2203.02155).
    num_comparisons: comparisons in the optimizer's batch, not in this piece of it; losses of the
    pieces then add up to the loss of the whole. centring: coefficient of `pair_sums_squared`; 0
    leaves it out. The rest as in `pair_nats`. Returns a scalar.
    """
    nats = pair_nats(scores, pairs, targets, margins=margins, ties=ties, log_nu=log_nu)
    if centring:
        nats = nats + centring * pair_sums_squared(scores, pairs)
    return (weights * nats).sum() / num_comparisons


def pair_sums_squared(scores: Tensor, pairs: Tensor) -> Tensor:
    """(r_i + r_j) ** 2 of each pair, (P,): its mean in the loss holds scores near zero
    (arXiv:2312.09244, equation 2)."""
    return (scores[pairs[:, 0]] + scores[pairs[:, 1]]) ** 2


def with_length(scores: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """Scores as they are while length is learned apart: each plus its head's weight x its length.

    The second, length-aware head of ODIN (arXiv:2402.07319, section 3.2), which sees nothing but
    length and is dropped afterwards. scores, lengths: (N x A,), the A heads of a completion side by
    side; weights: (A,) nats per unit of length.
    """
    return scores + (lengths.view(-1, len(weights)) * weights).flatten()


def explained_by_length(
    scores: Tensor, lengths: Tensor, pairs: Tensor, weights: Tensor, slopes: Tensor
) -> Tensor:
    """What length explains of the pairs' score differences d, half of its square: a scalar.

    With l the difference of lengths it is sum of w (slope x l x d - (slope x l)^2 / 2), which is
    greatest where the slope is that of the regression of d on l: it is then (sum of w l d)^2 / (sum
    of w l^2) / 2, the squared correlation x (sum of w d^2) / 2. Scores that lower it while slopes
    raise it part with length, as by ODIN's L_L, the correlation of a batch; but this is a sum over
    pairs, the same however a step is cut. The slopes, (A,) by head, get the gradient's opposite, so
    that whoever lowers the whole raises it in them.
    """
    turned = 2 * slopes.detach() - slopes  # the same numbers, the gradient turned
    length = lengths[pairs[:, 0]] - lengths[pairs[:, 1]]  # (P,)
    difference = scores[pairs[:, 0]] - scores[pairs[:, 1]]  # (P,)
    foretold = turned[pairs[:, 0] % len(slopes)] * length  # (P,)
    return (weights * (foretold * difference - foretold.square() / 2)).sum()
