"""What the figures mean, in one word and one sentence.

No figure sees everything. std x sqrt(d) of z is silent where an output BN keeps every channel's spread and channels move together
(no predictor); the effective rank is silent where all vectors share a long mean and differ by noise (no stop-gradient, no output BN);
both of z are silent where the predictions collapse first (a predictor on both sides). So all are asked, and the worst answer counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

State = Literal["healthy", "dimensional collapse", "collapsed", "diverged"]
STATES: tuple[State, ...] = ("healthy", "dimensional collapse", "collapsed", "diverged")  # from good to bad

# The thresholds, and how far runs of two toys were from them: SimSiam on images of 16 px, d = 128 unless it says otherwise, up to
# 1,200 steps, five seeds of a collapse and 20 of the healthy run at a rate of 0.1; also d = 2048, BYOL (no output BN), MoCo (no BN in
# its head) and SimCLR, for 150 to 300 steps. Others than the rank's do not depend on d and n.

# Of z. Healthy: 0.97 and more with output BN, 0.77 without it, 0.81 in BYOL; MoCo begins at 0.19 and rises, for which `Judge` waits.
# Without stop-gradient and output BN: 0.20 and less after 100 steps. 0.5 is a mean vector of length 0.87.
COLLAPSED_STD = 0.5
# Of p, whose mean is long for a while in healthy runs, until the predictor has learnt more than it: down to 0.34 without output BN
# and 0.24 in BYOL, between steps 50 and 150, then it rises. With a predictor on both sides it only falls: below 0.2 after 200 to
# 250 steps, while z looks healthy.
COLLAPSED_P_STD = 0.2
# Of z and of p. Healthy: 30 and more in z, 6.7 in p. Without stop-gradient, behind an output BN: 2.1 in z, 1.4 in p.
COLLAPSED_RANK = 2.0
# Mean |correlation| of z that is too much by itself. Healthy: at most 0.58, for some steps at the start, later 0.49. Without
# predictor: 0.6 to 0.99.
HIGH_CORRELATION = 0.7
# The two together. Healthy: the share was 0.24 and more while the correlation was above 0.5 (d = 128); at d = 2048 the share was
# 0.20 and more, the correlation 0.36 at most. Without predictor, from step 150 on: a share of 0.17 at most, a correlation of 0.62 at
# least. A share alone would not do: it falls with d where the data have few dimensions.
LOW_RANK_SHARE = 0.2
RAISED_CORRELATION = 0.5
# A share that is too little by itself: 6 of 128 dimensions, about 50 of 2048 as 1,024 rows show them. Healthy: 0.20 and more in
# SimSiam, 0.06 and rising in MoCo, whose correlation stays below 0.46.
LOWEST_RANK_SHARE = 0.05
# Times its first value, of a loss above 0. MoCo's rises while its keys grow apart: 1.5-fold in 300 steps.
RISEN_LOSS = 3.0
# Squared distance of two views of one image as a share of that of different images, above which nothing has been learnt yet. 1 is a
# random network; SimSiam on 3,502 chest X-rays of 32 px was at 0.8 after 200 steps.
UNLEARNT = 0.9


class Verdict(NamedTuple):
    """A state, and the sentence that says which figure shows it and what to try."""

    state: State
    sentence: str


def verdict(report: Mapping[str, float]) -> Verdict:
    """What a report means.

    Args:
        report: as `CollapseMonitor.report` gives it. Where they are known also `loss`, `loss_first` (at the start of the run),
            `grad_norm`, and `knn_auroc` with `knn_auroc_random`, of the encoder and of a random one.
    Returns:
        The worst state that any figure shows. What is not finite is never healthy.
    Raises:
        KeyError: a figure of z is missing.
    """
    return judged(report)[0]


class Finding(NamedTuple):
    """What a rule has to say, and the figure that is too low: training may still be raising it."""

    sentence: str
    figure: str
    value: float


def judged(report: Mapping[str, float]) -> tuple[Verdict, Finding | None]:
    """`verdict`, and what it is founded on; None where all is well."""
    for state, rule in (("diverged", _diverged), ("collapsed", _collapsed), ("dimensional collapse", _dimensional)):
        if finding := rule(report):
            return Verdict(state, finding.sentence + _neighbours(report)), finding
    sentence = f"The projections spread over many dimensions ({_figures(report)}); how useful they are, only labels can tell."
    return Verdict("healthy", sentence + _unlearnt(report) + _neighbours(report)), None


def _diverged(report: Mapping[str, float]) -> Finding | None:
    watched = ("loss", "grad_norm", "z_", "p_", "features_")
    unknown = [name for name, value in report.items() if name.startswith(watched) and not math.isfinite(value)]
    if unknown:
        return Finding(f"{_listed(unknown)}: not finite. Lower base_lr, or set precision: float32.", "", 0.0)
    loss, first = report.get("loss"), report.get("loss_first")
    if loss is not None and first is not None and 0 < first * RISEN_LOSS < loss:
        said = f"The loss is {loss:.3g}, {loss / first:.1f} times what it was at the start ({first:.3g}). Lower base_lr."
        return Finding(said, "", 0.0)
    return None


def _collapsed(report: Mapping[str, float]) -> Finding | None:
    for prefix, what, lowest in (("z", "projections", COLLAPSED_STD), ("p", "predictions", COLLAPSED_P_STD)):
        if f"{prefix}_std_sqrt_d" not in report and prefix == "p":
            continue
        std, rank = report[f"{prefix}_std_sqrt_d"], report[f"{prefix}_effective_rank"]
        # "not above" rather than "below": NaN must not pass.
        if not std >= lowest:
            said = f"The {what} of all images are nearly one point: {prefix}'s std x sqrt(d) is {std:.2f}, below {lowest}."
            figure, value = f"{prefix}_std_sqrt_d", std
        elif not rank >= COLLAPSED_RANK:
            said = (
                f"The {what} of all images lie on one line: {prefix}'s effective rank is {rank:.1f}, below {COLLAPSED_RANK:.0f}."
            )
            figure, value = f"{prefix}_effective_rank", rank
        else:
            continue
        return Finding(f"{said} What tells images apart so little is rarely of use. {_REMEDY}", figure, value)
    return None


def _dimensional(report: Mapping[str, float]) -> Finding | None:
    share, correlation = report["z_rank_share"], report["z_correlation"]
    figure, value = "z_rank_share", share
    if not correlation <= HIGH_CORRELATION:
        why = f"their channels move together (mean |correlation| {correlation:.2f}, above {HIGH_CORRELATION})"
        figure, value = "z_correlation", 1 - correlation
    elif not share >= LOWEST_RANK_SHARE:
        why = f"their effective rank is {share:.1%} of a Gaussian's, below {LOWEST_RANK_SHARE:.0%}"
    elif not (share >= LOW_RANK_SHARE or correlation <= RAISED_CORRELATION):
        why = (
            f"their effective rank is {share:.1%} of a Gaussian's, below {LOW_RANK_SHARE:.0%}, "
            f"and the mean |correlation| of their channels {correlation:.2f}, above {RAISED_CORRELATION}"
        )
    else:
        return None
    said = f"The projections fill only a few dimensions: {why}. All figures: {_figures(report)}. {_REMEDY}"
    return Finding(said, figure, value)


_REMEDY = "Try a lower base_lr or stronger views, and look whether stop-gradient and predictor are as in the method's paper."


def _figures(report: Mapping[str, float]) -> str:
    std, rank = report["z_std_sqrt_d"], report["z_effective_rank"]
    return (
        f"std x sqrt(d) {std:.2f}, effective rank {rank:.1f}, {report['z_rank_share']:.1%} of a Gaussian's, "
        f"correlation {report['z_correlation']:.2f}"
    )


def _neighbours(report: Mapping[str, float]) -> str:
    own, random = report.get("knn_auroc"), report.get("knn_auroc_random")
    if own is None or random is None or not (math.isfinite(own) and math.isfinite(random)):
        return ""
    than = "better than" if own > random else "no better than"
    return f" Neighbours tell labels apart {than} those of a random network (AUROC {own:.3f} against {random:.3f})."


def nearness(report: Mapping[str, float]) -> float | None:
    """Mean squared distance of two views of one image, as a share of that of different images, 2 (1 - m_o^2): 1 is a random network.

    None where only one view of each image gave a z.
    """
    alignment, residual = report.get("z_alignment"), report.get("z_residual")
    return None if alignment is None or residual is None else float(alignment) / max(2 * float(residual) ** 2, 1e-12)


def _unlearnt(report: Mapping[str, float]) -> str:
    """Spread is no learning: a random network spreads its vectors too, those of two views of one image as well."""
    share = nearness(report)
    if share is None or share < UNLEARNT:
        return ""
    return (
        f" But two views of one image are hardly nearer than views of different images (squared distance {share:.0%} of theirs): "
        "train longer, or look whether the views leave anything in common."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
