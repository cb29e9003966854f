"""Every tool's settings, in one place.

`newcomer` is what somebody writes who has read the tool's documentation once: its own defaults
where it has them; where it asks for a rate and a number of steps, those are Adam at 0.01 and
10,000. `grid` is what an expert would try next. The table's tuned row takes, for each posterior,
the setting of the grid whose answer came out closest to the truth, which nobody who does not know
the truth can do: it bounds the tool from above. bbvi has no grid; nothing of it is set.
"""

from typing import Any, NamedTuple


class Tool(NamedTuple):
    """An adapter `module:function`, its settings, and how gradients are counted if not told."""

    adapter: str
    newcomer: dict[str, Any]
    grid: tuple[dict[str, Any], ...] = ()
    count: str | None = None
    vi: bool = True


# Of a stochastic bound: ten draws a step, a rate that decays to zero, three rates.
RATES = (0.003, 0.02, 0.1)
ADAM = {"rate": 0.01, "steps": 10_000}
DECAYED = tuple({"rate": r, "steps": 10_000, "draws": 10, "decay": True} for r in RATES)

TOOLS: dict[str, Tool] = {
    "bbvi": Tool("ours:fit", {}),
    "numpyro AutoNormal": Tool(
        "numpyro_svi:fit",
        ADAM | {"guide": "AutoNormal"},
        tuple(s | {"guide": "AutoNormal"} for s in DECAYED),
    ),
    "numpyro AutoMultivariateNormal": Tool(
        "numpyro_svi:fit",
        ADAM | {"guide": "AutoMultivariateNormal"},
        tuple(s | {"guide": "AutoMultivariateNormal"} for s in DECAYED),
    ),
    "numpyro AutoIAFNormal": Tool(
        "numpyro_svi:fit",
        ADAM | {"guide": "AutoIAFNormal"},
        tuple(s | {"guide": "AutoIAFNormal"} for s in DECAYED),
    ),
    "blackjax meanfield_vi": Tool(
        "blackjax_vi:fit",
        ADAM | {"algorithm": "meanfield_vi", "draws": 10},
        tuple(s | {"algorithm": "meanfield_vi"} for s in DECAYED),
    ),
    "blackjax fullrank_vi": Tool(
        "blackjax_vi:fit",
        ADAM | {"algorithm": "fullrank_vi", "draws": 10},
        tuple(s | {"algorithm": "fullrank_vi"} for s in DECAYED),
    ),
    "TFP mean-field": Tool(
        "tfp_vi:fit",
        ADAM | {"shape": "diag"},
        tuple(s | {"shape": "diag"} for s in DECAYED),
    ),
    "TFP full-rank": Tool(
        "tfp_vi:fit",
        ADAM | {"shape": "tril"},
        tuple(s | {"shape": "tril"} for s in DECAYED),
    ),
    "flowjax MAF": Tool(
        "flowjax_flow:fit",
        {"rate": 0.01, "steps": 1_000, "draws": 100},
        tuple({"rate": r, "steps": 3_000, "draws": 200} for r in (0.001, 0.003, 0.01)),
    ),
    "blackjax pathfinder": Tool(
        "blackjax_pathfinder:one",
        {},
        ({"maxiter": 100}, {"maxiter": 300, "maxcor": 20}),
        count="blackjax_pathfinder:count_one",
    ),
    "blackjax multipathfinder": Tool(
        "blackjax_pathfinder:several",
        {"paths": 4},
        # all paths' points are evaluated at once: more of either does not fit into 24 GiB
        ({"paths": 20}, {"paths": 8, "maxiter": 100}),
        count="blackjax_pathfinder:count_several",
    ),
    "PyMC ADVI": Tool(
        "pymc_advi:fit",
        {"method": "advi"},
        tuple({"method": "advi", "steps": 20_000, "rate": r} for r in (0.003, 0.03)),
    ),
    "PyMC full-rank ADVI": Tool(
        "pymc_advi:fit",
        {"method": "fullrank_advi"},
        tuple({"method": "fullrank_advi", "steps": 20_000, "rate": r} for r in (0.003, 0.03)),
    ),
    "pymc-extras pathfinder": Tool(
        "pymc_extras_fits:pathfinder", {}, ({"num_paths": 20, "num_elbo_draws": 50},)
    ),
    "pymc-extras DADVI": Tool("pymc_extras_fits:dadvi", {}, ({"n_fixed_draws": 200},)),
    "numpyro NUTS": Tool(
        "numpyro_nuts:fit",
        {},
        ({"dense_mass": True}, {"dense_mass": True, "accept": 0.95}),
        vi=False,
    ),
    "nutpie NUTS": Tool(
        "nutpie_nuts:fit",
        {},
        ({"adaptation": "low_rank"}, {"target_accept": 0.95, "draws": 3000}),
        vi=False,
    ),
}
