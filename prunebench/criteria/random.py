"""Random: uniform scores, the baseline that every criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.criteria import Criterion, Evidence, GroupRank


@dataclass(frozen=True)
class Random(Criterion):
    """Scores channels uniformly in [0, 1), seeded by the run's seed and the group's name."""

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Draws one score per class; a group's draw does not depend on the other groups."""
        import torch

        from prunebench.reproducibility import generator

        return {
            group.name: GroupRank(
                torch.rand(
                    group.size,
                    dtype=torch.float64,
                    generator=generator(evidence.seed, "random", group.name),
                )
            )
            for group in evidence.groups
        }
