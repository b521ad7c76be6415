"""Interpolations: how far they unfold is counted while OmegaConf resolves them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from omegaconf import Container, Node, _impl
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import InterpolationResolutionError

#: interpolations that a configuration may take up as a whole, and characters that come of one
MOST, LONGEST = 2000, 20_000


class _Count:
    """Of the interpolations that what was asked for first, and is not yet there, has taken up."""

    def __init__(self) -> None:
        self.depth = self.taken = 0

    def within(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `work`, from whose outermost call on the count is kept."""

        @wraps(work)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.taken = self.taken if self.depth else 0
            self.depth += 1
            try:
                return work(*args, **kwargs)
            finally:
                self.depth -= 1

        return counted

    def bounded(self, resolve: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `resolve`, which takes up one, refusing what unfolds too far."""

        @wraps(resolve)
        def resolve_one(*args: Any, **kwargs: Any) -> Any:
            self.taken += 1
            found = resolve(*args, **kwargs) if self.taken <= MOST else ""
            self.taken += _inside(found)
            text = found._value() if isinstance(found, Node) else found
            if self.taken > MOST or (isinstance(text, str) and len(text) > LONGEST):
                raise InterpolationResolutionError(
                    f"{kwargs.get('key') or 'a value'} unfolds to more than {MOST:,} others or "
                    f"{LONGEST:,} characters; type it out"
                )
            return found

        return self.within(resolve_one)


def _inside(found: object) -> int:
    """Returns how many values lie in `found`, as they are written."""
    content = found._content if isinstance(found, BaseContainer) else ()
    values = content.values() if isinstance(content, dict) else content or ()
    return 0 if isinstance(values, str) else sum(1 + _inside(value) for value in values)


def bound() -> None:
    """Has OmegaConf refuse, in this process, what unfolds to more than a configuration holds."""
    count = _Count()
    container: Any = Container
    container.resolve_parse_tree = count.bounded(Container.resolve_parse_tree)
    base: Any = BaseContainer
    base._to_content = staticmethod(count.within(BaseContainer._to_content))
    implementation: Any = _impl
    implementation._resolve = count.within(_impl._resolve)
