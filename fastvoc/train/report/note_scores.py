"""How good made notes are beside real ones, by GANSynth's measures.

Engel et al. 2019, arXiv:1902.08710, § 4: statistically different bins (Richardson and Weiss 2018, arXiv:1805.12462),
Fréchet distance (Heusel et al. 2017, arXiv:1706.08500) and inception score (Salimans et al. 2016, arXiv:1606.03498),
the last two by a classifier of pitches, and the accuracy and entropy of what that says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.train.tasks.task import own_defaults

SIGNIFICANT = 1.959964
"""Standard deviations that two shares differ by in one of twenty cases, if they are of one distribution."""

WIDTH, FEATURES = 256, 64
"""Of the hidden layers of the classifier; the second is what the Fréchet distance compares."""

ROUNDS = 100
"""Most of the rounds in which cells find their centres."""


@dataclass(frozen=True)
class NoteScores:
    """What is said of a set of notes."""

    different_bins: int
    """Of the cells of real notes; fewer is better."""
    bins: int
    """Cells."""
    frechet: float
    """Distance of the distributions of features; less is better."""
    inception: float
    """From 1 to the number of pitches; more is better."""
    accuracy: float
    """Share of notes whose pitch the classifier names."""
    entropy: float
    """Of what the classifier says of a note, in nats, on average; less is better."""
    pitches: int
    """That it tells apart."""
    strongest: float
    """Share of notes whose pitch is the one whose partials are strongest, whatever the classifier says (see
    `fastvoc.audio.partials.strongest_pitch`)."""


class PitchClassifier(nn.Module):
    """Names the pitch of a note by how loud its partials are on average over time.

    Parameters
    ----------
    bins : int
        Of the pictures.
    pitches : int
    """

    def __init__(self, bins: int, pitches: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(bins, WIDTH)
        self.features = nn.Linear(WIDTH, FEATURES)
        self.named = nn.Linear(FEATURES, pitches)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Judge pictures.

        Parameters
        ----------
        picture : Tensor, shape (B, 1 or 2, frames, bins)
            As `fastvoc.audio.instantaneous_frequency.normalise` scales them; the second layer is not read.

        Returns
        -------
        features : Tensor, shape (B, 64)
        logits : Tensor, shape (B, pitches)
        """
        level = picture[:, 0].mean(dim=1)
        level = F.layer_norm(level, level.shape[-1:])
        x = F.relu(self.hidden(F.dropout(level, 0.3, self.training)))
        x = F.relu(self.features(F.dropout(x, 0.3, self.training)))
        return x, self.named(x)


@own_defaults()
def train_classifier(
    pictures: Tensor, pitch: Tensor, pitches: int, *, steps: int = 600, batch: int = 64, seed: int = 0
) -> PitchClassifier:
    """Train a classifier on real notes.

    Parameters
    ----------
    pictures : Tensor, shape (N, 1 or 2, frames, bins)
    pitch : Tensor, shape (N,), int64
        From 0.
    pitches : int
    steps, batch : int
    seed : int
        Of first weights, and of everything else that is drawn.

    Returns
    -------
    PitchClassifier
        In evaluation mode.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = PitchClassifier(pictures.shape[-1], pitches).to(pictures)
        levels = pictures[:, :1].mean(dim=2, keepdim=True)  # all that it reads
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        for step in range(steps):
            chosen = torch.randint(len(pitch), (batch,)).to(pitch.device)
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad()
            loss = F.cross_entropy(network(levels[chosen])[1], pitch[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval()


def different_bins(real: Tensor, others: Tensor, *, bins: int = 50, seed: int = 0) -> int:
    """Count the cells into which significantly another share of others falls than of real ones.

    The cells are those of k-means among the real ones.

    Parameters
    ----------
    real, others : Tensor, shapes (N, D) and (M, D)
    bins : int
        At most N.
    seed : int
        Of the first centres.
    """
    _refuse_broken(real, others, "different_bins")
    if not 0 < bins <= len(real):
        raise ValueError(f"different_bins: bins is {bins}; it must be from 1 to the number of real notes, {len(real)}")
    centres = _centres(real.double(), bins, seed)
    shares = []
    for some in (real, others):
        cell = torch.cdist(some.double(), centres).argmin(dim=1)
        shares.append(torch.bincount(cell, minlength=bins).double() / len(some))
    joined = (shares[0] * len(real) + shares[1] * len(others)) / (len(real) + len(others))
    deviation = (joined * (1 - joined) * (1 / len(real) + 1 / len(others))).sqrt()
    return int(((shares[0] - shares[1]).abs() > SIGNIFICANT * deviation).sum())


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return |m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½) of the means and covariances of (N, D) and (M, D) features."""
    if min(len(one), len(other)) < 2:
        raise ValueError("frechet_distance: a covariance needs two notes at least")
    _refuse_broken(one, other, "frechet_distance")
    (mean, covariance), (mean2, covariance2) = (
        (x.double().mean(dim=0), torch.cov(x.double().T).reshape(x.shape[1], x.shape[1])) for x in (one, other)
    )
    root = _root(covariance)
    # C₁ C₂ has the eigenvalues of C₁^½ C₂ C₁^½, which is symmetric
    shared = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean - mean2).square().sum() + covariance.trace() + covariance2.trace() - 2 * shared
    return max(0.0, float(distance))  # but for rounding


def inception_score(logits: Tensor) -> float:
    """Return exp of the mean divergence of what is said of each, (N, classes), from what is said of all."""
    if not len(logits):
        raise ValueError("inception_score: there are no notes; it needs one at least")
    log = logits.double().log_softmax(dim=1)
    all_of_them = log.logsumexp(dim=0) - math.log(len(log))  # finite, though no note may be of a class
    return float((log.exp() * (log - all_of_them)).sum(dim=1).mean().exp())


def mean_entropy(logits: Tensor) -> float:
    """Return the mean entropy of what is said of each, (N, classes), in nats."""
    log = logits.double().log_softmax(dim=1)
    return abs(float((log.exp() * log).sum(dim=1).mean()))


def score_notes(
    classifier: PitchClassifier, real: Tensor, pictures: Tensor, pitch: Tensor, *, strongest: float, bins: int = 50
) -> NoteScores:
    """Measure notes beside real ones.

    Parameters
    ----------
    classifier : PitchClassifier
    real : Tensor, shape (N, 1 or 2, frames, bins)
        Pictures of real notes.
    pictures : Tensor, shape (M, 1 or 2, frames, bins)
    pitch : Tensor, shape (M,), int64
        That each of `pictures` should have, from 0.
    strongest : float
        Share of their waves whose partials say so.
    bins : int
        Cells of real notes; fewer where there are fewer notes than five in each.
    """
    with torch.no_grad():
        (features, _), (others, logits) = (classifier(some) for some in (real, pictures))
    cells = max(1, min(bins, len(real) // 5))
    levels = [some[:, 0].flatten(1) for some in (real, pictures)]
    return NoteScores(
        different_bins(*levels, bins=cells),
        cells,
        frechet_distance(features, others),
        inception_score(logits),
        float((logits.argmax(dim=1) == pitch).float().mean()),
        mean_entropy(logits),
        logits.shape[1],
        strongest,
    )


def _refuse_broken(one: Tensor, other: Tensor, where: str) -> None:
    """Raise if there are no notes, or some that cannot be compared."""
    for notes in (one, other):
        if not len(notes):
            raise ValueError(f"{where}: there are no notes; it needs one of each kind at least")
        if broken := int((~notes.isfinite()).flatten(1).any(dim=1).sum()):
            raise ValueError(f"{where}: {broken} of {len(notes)} notes hold values that are not finite")


def _centres(points: Tensor, bins: int, seed: int) -> Tensor:
    """Return the centres of k-means, (bins, D), of which none is empty."""
    generator = torch.Generator().manual_seed(seed)
    # each first centre is drawn by its squared distance from those before (Arthur and Vassilvitskii 2007)
    weight = torch.ones(len(points), dtype=torch.float64)
    first: list[int] = []
    for _ in range(bins):
        first.append(int(torch.multinomial(weight if bool(weight.any()) else weight + 1, 1, generator=generator)))
        nearest = torch.cdist(points, points[first[-1:]]).square().flatten().cpu()
        weight = nearest if len(first) == 1 else torch.minimum(weight, nearest)
    centres = points[first]
    cell = points.new_zeros(len(points), dtype=torch.int64)
    for _ in range(ROUNDS):
        distance = torch.cdist(points, centres)
        found = distance.argmin(dim=1)
        if torch.equal(found, cell):
            break
        cell = found
        counts = torch.bincount(cell, minlength=bins)
        sums = torch.zeros_like(centres).index_add_(0, cell, points)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres


def _root(matrix: Tensor) -> Tensor:
    """Return the symmetric root of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
