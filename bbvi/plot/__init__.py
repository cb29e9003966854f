"""Pictures of a fit and of a batch; they need matplotlib (extra `plot`)."""

from bbvi.plot.batch import plot_batch
from bbvi.plot.fit import plot_fit
from bbvi.plot.marginal import plot_marginal
from bbvi.plot.pairs import plot_pairs
from bbvi.plot.tail import plot_tail
from bbvi.plot.trace import plot_trace

__all__ = ["plot_batch", "plot_fit", "plot_marginal", "plot_pairs", "plot_tail", "plot_trace"]
