"""The types that criteria, budgets, repairs, schedules and training exchange; read this first.

A criterion gets `Evidence` and returns a `GroupRank` for each group. A budget turns the ranks into
a plan, relative to the counts of the `Dense` network. Where channels go during training, a
criterion or schedule gets an `Assignment` with the budget's `Limit`s and returns a
`PruningObserver`, which is called at every `Moment` of the training.
"""

from prunebench.contracts.counts import Dense as Dense
from prunebench.contracts.counts import Limit as Limit
from prunebench.contracts.evidence import Evidence as Evidence
from prunebench.contracts.evidence import Rows as Rows
from prunebench.contracts.evidence import Sampled as Sampled
from prunebench.contracts.evidence import rows as rows
from prunebench.contracts.evidence import rows_in as rows_in
from prunebench.contracts.observer import Assignment as Assignment
from prunebench.contracts.observer import Moment as Moment
from prunebench.contracts.observer import Observer as Observer
from prunebench.contracts.observer import PruningObserver as PruningObserver
from prunebench.contracts.observer import RepeatingObserver as RepeatingObserver
from prunebench.contracts.rank import Degrees as Degrees
from prunebench.contracts.rank import GroupRank as GroupRank
from prunebench.contracts.task import Task as Task
