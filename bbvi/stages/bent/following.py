"""The curve of a bent Gaussian, moved onto the ridge by scores."""

import numpy as np

from bbvi._types import PyTree
from bbvi.families.bent import CURVED, features
from bbvi.stages.bent.bending import regression, roughness, with_one
from bbvi.stages.unseen import Space

# Points, of drivers so many times as wide as they are, within so many sds; steps of each.
_POINTS, _WIDE, _FARTHEST, _STEPS = 512, 1.8, 4.5, 6
# Where scores of nine points in ten are of this size, in sds, they are as good as there; points
# with larger ones than the other are not.
_THERE, _NEAR = 0.05, 0.5
_SHORTER, _LONGER = 0.3, 2.0
_SMOOTH = 1e-6  # these points have no noise


@np.errstate(all="ignore")  # far out much overflows, and is left out
def follow(
    space: Space,
    params: PyTree,
    size: int,
    random: np.random.Generator,
) -> tuple[PyTree, int]:
    r"""A bent Gaussian whose curve is the ridge of a density, also where no draws have been.

    Given its drivers all else is standard normal in the units of a bent Gaussian, if that is right;
    if only its curve is not, a normal of the same widths around another mean, and from anywhere

        eps + grad log pi(eps)

    is that mean. Points far out along the drivers take some such steps, in which the drivers stay
    where they are, and the curve becomes the regression on where they have come to. Draws show a
    ridge only where there are some, and far out their weights depend on where the curve is: of
    twenty fits of five sharp ridges eleven were right where curves were fitted to weighted draws
    alone, and all are with this.

    Args:
        space: the base space of the bent Gaussian.
        params: of the bent Gaussian.
        size: S, for which there is a program.
        random: of the host.

    Returns:
        parameters, and gradients spent.
    """
    order, shape = params["order"], np.asarray(params["shape"], float)
    follows = (params["means"] != 0).any(axis=0) | (params["widths"] != 0).any(axis=0)
    few, room = int(np.argmax(follows)), shape.shape[1]
    eps = np.zeros((max(1, _POINTS // size) * size, len(order)))
    drivers = _WIDE * random.standard_normal((len(eps), few))
    eps[:, :few] = np.clip(drivers, -_FARTHEST, _FARTHEST)
    spent = 0

    def at(eps):
        nonlocal spent
        spent += len(eps)
        found = (space.density(eps[i : i + size]) for i in range(0, len(eps), size))
        z, log_p, score = (np.concatenate(x).astype(float) for x in zip(*found, strict=True))
        score[:, :few] = 0
        return z, log_p, score

    z, log_p, score = at(eps)
    step = np.ones((len(eps), 1))
    for _ in range(_STEPS):
        tried = eps + step * score
        z_there, log_p_there, score_there = at(tried)
        up = log_p_there >= log_p
        step = np.where(up[:, None], np.minimum(1, _LONGER * step), _SHORTER * step)
        pairs = ((tried, eps), (z_there, z), (score_there, score))
        eps, z, score = (np.where(up[:, None], new, old) for new, old in pairs)
        log_p = np.where(up, log_p_there, log_p)
        sizes = np.sqrt(np.mean(score**2, axis=1))
        if np.quantile(sizes, 0.9) < _THERE:
            break
    near = np.isfinite(log_p) & (sizes < _NEAR)
    a = np.zeros((len(eps), room))
    a[:, :few] = eps[:, :few]
    of_means, of_widths = features(a, shape)
    used = (params["means"] != 0).any(axis=1)
    x = with_one(of_means * used)[near]
    if len(x) <= 2 * x.any(axis=0).sum():
        return params, spent
    y = z[near][:, order[few:]]
    weights = np.exp(-2 * of_widths[near] @ params["widths"][:, few:])
    found = regression(x, y, weights, _SMOOTH * roughness(x.shape[1], min(CURVED, room)))
    if not np.isfinite(found).all():
        return params, spent
    loc, means = (np.array(params[name], float) for name in ("loc", "means"))
    loc[few:], means[:, few:] = found[0], found[1:]
    return params | {"loc": loc, "means": means}, spent
