"""A plan: which classes of each group stay, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import ge

from prunebench.errors import PruningError


@dataclass(frozen=True, init=False)
class Plan:
    """The kept classes of each group, ascending; groups that are not named keep everything.

    Enough to rebuild a slim network: build the dense one from its config, trace, slim.

    Attributes:
        kept: group name -> kept class indices, ascending and unique.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __init__(self, kept: Mapping[str, Iterable[int]]) -> None:
        """Copies `kept`.

        Raises:
            PruningError: a group keeps nothing, or its indices are negative, unsorted or repeated.
        """
        copied: dict[str, tuple[int, ...]] = {}
        for name, indices in kept.items():
            found = tuple(map(int, indices))
            if not found:
                raise PruningError(f"plan: group '{name}' would keep no channel; keep at least 1")
            if found[0] < 0 or any(map(ge, found, found[1:])):
                raise PruningError(
                    f"plan: the kept channels of group '{name}' must be ascending, unique "
                    f"and not negative"
                )
            copied[name] = found
        object.__setattr__(self, "kept", copied)

    def __hash__(self) -> int:
        """Hashes equal plans alike, whatever the order of their groups."""
        return hash(frozenset(self.kept.items()))

    def to_json(self) -> str:
        """Returns the plan as JSON text, groups in alphabetical order."""
        return json.dumps({"kept": {name: list(self.kept[name]) for name in sorted(self.kept)}})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what `to_json` wrote.

        Raises:
            PruningError: the text is not a plan.
        """
        try:
            kept = json.loads(text)["kept"]
            return cls({str(name): [int(i) for i in indices] for name, indices in kept.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PruningError(f"this is not a plan: {error!r}") from error

    @staticmethod
    def compose(first: Plan, then: Plan) -> Plan:
        """Returns the plan that does in one step what `first` and then `then` do.

        Args:
            first: in the numbering of the dense network.
            then: in the numbering of the network already slimmed by `first`.

        Raises:
            PruningError: `then` keeps channels that `first` did not leave.
        """
        kept = dict(first.kept)
        for name, indices in then.kept.items():
            before = first.kept.get(name)
            if before is not None and indices[-1] >= len(before):
                raise PruningError(
                    f"plan: group '{name}' has {len(before)} channels after the first plan, "
                    f"but channel {indices[-1]} is to be kept"
                )
            kept[name] = indices if before is None else tuple(before[i] for i in indices)
        return Plan(kept)
