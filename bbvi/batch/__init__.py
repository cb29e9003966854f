"""Many problems of one shape in one call."""

from bbvi.batch.fitting import fit_batch
from bbvi.batch.ragged import Ragged, ragged
from bbvi.batch.result import BatchResult

__all__ = ["BatchResult", "Ragged", "fit_batch", "ragged"]
