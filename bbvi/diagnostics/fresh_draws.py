"""Fits judged on fresh draws: how many, how they are made, and where."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bbvi._arrays import is_on_host, is_traced
from bbvi._compile import draws_jit, quick_jit
from bbvi._tree import split
from bbvi._types import Array, PyTree
from bbvi.diagnostics.figures import NOTHING, Diagnostics, Drawn, Plan, figures, of_weight
from bbvi.diagnostics.pareto import USABLE
from bbvi.evaluate import densities, generator, scalars
from bbvi.families import Family
from bbvi.families.proposals import (
    FAR_DF,
    TAIL_DF,
    Noise,
    Proposal,
    draw_noise,
    host_noise,
    noise_shapes,
)
from bbvi.target import Target

# Fresh draws, fewer where they are long. With 2,048 the tail that k-hat is fitted to begins in
# the bulk of the weights, and nearly perfect fits read 2 and more; here it is 2% of the draws.
_MOST_DRAWS, _LEAST_DRAWS = 16_384, 1_024
_TOTAL_ELEMENTS = 1 << 24
# Where all would compute more elements than the first of these (20 milliseconds of a core or so),
# and are few enough to be kept, they are drawn by the quarter, since one may do: it tells means to
# 0.02 sds, sds to 2%, and a k-hat of 0.5 where all read 0.4. Of less, calls of programs are what
# costs. Where they would compute more than the second (half a minute), that is enough by itself.
_BY_QUARTERS, _HEAVY = 1 << 26, 1 << 32
_LIGHT = 1 << 28  # 2 seconds of a core
# Elements of draws held at once; their first five powers are.
_CHUNK_ELEMENTS = 1 << 21
# Elements of draws up to which only drawing is compiled: the loop as a whole takes the compiler
# seconds.
_HOST_ELEMENTS = 1 << 25
# Elements of draws kept in the result, for pictures and checks: 16 MiB in float32.
_KEPT_ELEMENTS = 1 << 22
# Draws far out are there to give squares a variance: where they do not, errors count it. (Of five
# Student-t of 2.5 degrees sds were 12% short, and trusted, by 65,536 of them.)
_LIGHT_SQUARES = 0.5
# Directions along which draws are made far out: of more, fewer than 64 lie along each.
_MOST_DIRECTIONS = 64


def _plan(target: Target, num_draws: int | None, most: float = np.inf) -> Plan:
    if num_draws is None:
        num_draws = default_draws(target)[-1]
    dim = target.dim
    size = int(max(1, min(num_draws, most, _CHUNK_ELEMENTS // dim)))
    chunks = -(-num_draws // size)
    size = -(-num_draws // chunks)
    return Plan(chunks, size, max(1, min(size, _KEPT_ELEMENTS // dim)))


def _plan_on_host(target: Target, num_draws: int | None) -> Plan:
    """All draws come in chunks of the first look's size, for which there are programs."""
    return _plan(target, num_draws, default_draws(target)[0])


def _too_many(target: Target, plan: Plan) -> bool:
    """Whether draws are too many for the host, so that one program makes and sums them."""
    return plan.chunks * plan.size * target.dim > _HOST_ELEMENTS


def _keys_of_chunks(key: Array, chunks: int) -> list[Array]:
    return [key] if chunks == 1 else list(split(key, chunks))


def diagnose(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    num_draws: int | None = None,
    far: bool = False,
) -> Diagnostics:
    """Judge an approximation on draws it was not fitted to.

    Draws are made in chunks, twice from the same keys where they do not fit in memory at
    once: first for the weights, then for the moments. Where the chunks are few, only drawing is
    compiled, and the figures are arrays of numpy.

    Draws far out know moments of which others see too little: of two Student-t of three degrees
    the sds were 9% short in the median, and are within 4%. Where tails are light, and in many
    dimensions those of all scalars together, they know less.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        num_draws: S; None takes 16,384, or fewer (at least 1,024) for D over 1,024.
        far: whether half of the draws lie far out; see `reaches_far`.
    """
    plan = _plan_on_host(target, num_draws)
    if not far and (is_traced((params, key, data)) or _too_many(target, plan)):
        return _in_chunks(target, family, params, key, data, _plan(target, num_draws))
    return _on_host(target, family, params, key, data, plan, far)


def reaches_far(target: Target, family: Family, params: PyTree, num_draws: int) -> bool:
    """Whether so many draws can be made of which half lie far out."""
    if _too_many(target, _plan_on_host(target, num_draws)):
        return False
    directions = family.directions(jax.device_get(params))
    return directions is not None and directions.shape[-2] <= _MOST_DIRECTIONS


def first_looks(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree
) -> Iterator[Diagnostics]:
    """Diagnostics by a quarter of the usual draws, and then by all; where that saves none, by all.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
    """
    numbers = default_draws(target)
    if _are_kept(target, numbers[-1]):
        return closer_looks(target, family, params, key, data, False, numbers)
    looks = (diagnose(target, family, params, key, data, number) for number in numbers)
    return map(jax.device_get, looks)


def closer_looks(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    far: bool,
    numbers: Sequence[int],
) -> Iterator[Diagnostics]:
    """Diagnostics by more and more draws, those of each look among those of the next.

    All are kept: what the moments rest on is what the posterior is made of.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        far: whether half of the draws lie far out.
        numbers: how many draws, in ascending order.
    """
    size = _plan_on_host(target, numbers[-1]).size
    keys = iter(_keys_of_chunks(key, -(-numbers[-1] // size)))
    chunks: list[Drawn] = []
    for number in numbers:
        while len(chunks) * size < number:
            chunks.append(_draw_on_host(target, family, params, next(keys), data, size, far))
        drawn, total = chunks[0], len(chunks) * size
        if len(chunks) > 1:  # one is no copy
            drawn = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
        yield _figures_on_host(drawn, Plan(1, total, total), far)


def _on_host(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    plan: Plan,
    far: bool,
) -> Diagnostics:
    """Figures in numpy; draws come in chunks, made anew for each sum unless they are few."""
    keys = _keys_of_chunks(key, plan.chunks)
    total = plan.chunks * plan.size
    if plan.chunks > 1 and _are_kept(target, total):
        return next(closer_looks(target, family, params, key, data, far, [total]))

    def draw(i):
        return _draw_on_host(target, family, params, keys[i], data, plan.size, far)

    first = draw(0)
    return _figures_on_host(first, plan, far, draw)


def _draw_on_host(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree, size: int, far: bool
) -> Drawn:
    noise = host_noise(generator(key), size, *family.event(params), FAR_DF if far else TAIL_DF)
    if is_on_host(params):
        proposal = (family.propose_far_at if far else family.propose_at)(params, noise)
        proposal = proposal._replace(z=proposal.z.astype(target.dtype))
        x = scalars(target, proposal.z, data)
    else:
        proposal, x = _propose(target, family, params, noise, data, far)
    log_p = densities(target, proposal.z, data)
    z, *rest, own, log_p, x = jax.device_get((*proposal, log_p, x))
    log_q, log_mixture, log_p, x = (a.astype(float) for a in (*rest, log_p, x))
    return Drawn(z, log_q, log_mixture, own, log_p, x)


def _figures_on_host(
    first: Drawn, plan: Plan, far: bool, draw: Callable[[int], Drawn] | None = None
) -> Diagnostics:
    """Figures in numpy, of the first chunk of draws and those that `draw` gives by their number."""

    def over_chunks(function, *along):
        chunks = (draw(i) if i and draw else first for i in range(plan.chunks))
        found = [function(drawn, *x) for drawn, *x in zip(chunks, *along, strict=True)]
        return [np.stack(x) for x in zip(*found, strict=True)]

    with np.errstate(all="ignore"):
        found = figures(first, plan, over_chunks, _LIGHT_SQUARES if far else USABLE)
        if far:
            # What counts for nothing may lie where the map to the parameters overflows. Others are
            # in its place: of another number of draws programs would be built anew.
            weighs = found.own | (found.log_weights > np.log(NOTHING / found.num_draws))
            some: Any = {
                "draws": of_weight(weighs, found.draws, found.log_weights),
                "log_weights": np.where(weighs, found.log_weights, -np.inf),
            }
            found = found._replace(**some)
        # summed in double precision, but of the target's type as all else
        dtype = found.draws.dtype
        return jax.tree.map(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, found)


def prepare_diagnose(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree
) -> None:
    """Begin to build what `diagnose` of such arguments will need."""
    number = default_draws(target)[0]
    plan = _plan_on_host(target, number)
    if _too_many(target, plan):
        _in_chunks.prepare(target, family, params, key, data, _plan(target, number))
    else:
        noise = noise_shapes(plan.size, *family.event(params))
        proposal, _ = _propose.prepare(target, family, params, noise, data, False)
        densities.prepare(target, proposal.z, data)


@draws_jit(lambda target, family, params, noise, data, far: noise.eps.size, (0, 1, 5))
def _propose(
    target: Target, family: Family, params: PyTree, noise: Noise, data: PyTree, far: bool
) -> tuple[Proposal, Array]:
    """Draws of a proposal, and the scalar parameters (S, C) there."""
    proposal = (family.propose_far_at if far else family.propose_at)(params, noise)
    x = jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(proposal.z)
    return proposal, x


@quick_jit(0, (0, 1, 5))
def _in_chunks(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree, plan: Plan
) -> Diagnostics:

    def draw(key):
        noise = draw_noise(key, plan.size, *family.event(params))
        proposal, x = _propose.plain(target, family, params, noise, data, False)
        log_p = target.log_densities(proposal.z, data)
        z, log_q, log_mixture, own = proposal
        return Drawn(z, log_q, log_mixture, own, log_p, x)

    keys = key[None] if plan.chunks == 1 else jax.random.split(key, plan.chunks)
    first = draw(keys[0])

    def over_chunks(function, *along):
        if plan.chunks == 1:
            return [x[None] for x in function(first, *(x[0] for x in along))]
        return jax.lax.map(lambda args: function(draw(args[0]), *args[1:]), (keys, *along))

    return figures(first, plan, over_chunks)


def default_draws(target: Target) -> tuple[int, ...]:
    """S when none is given; two numbers where fewer should be tried first."""
    most = _usual_draws(target)
    quarters = _are_kept(target, most) and most * target.work > _BY_QUARTERS
    return (most // 4, most) if quarters or is_heavy(target) else (most,)


def is_heavy(target: Target) -> bool:
    """Whether the usual draws take half a minute."""
    return _usual_draws(target) * target.work > _HEAVY


def _usual_draws(target: Target) -> int:
    return min(_MOST_DRAWS, max(_LEAST_DRAWS, _TOTAL_ELEMENTS // target.dim))


def most_draws(target: Target) -> int:
    """S that cost no more than short chains do, and few enough to be kept."""
    return min(_KEPT_ELEMENTS // target.dim, _LIGHT // target.work)


def _are_kept(target: Target, num_draws: int) -> bool:
    return num_draws * target.dim <= _KEPT_ELEMENTS
