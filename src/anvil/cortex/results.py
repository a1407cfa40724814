"""What card keys are known to give."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from anvil.cortex.queries import sql
from anvil.cortex.records import StoredResult
from anvil.cortex.store import Store, json_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anvil.model.card import Card

_COLUMNS = ("key", "work", "out", "work_times", "out_times", "log", "ret", "card", "op", "duration_ms", "worker")


class Results(Store):
    """Kept results."""

    def find_result(self, key: str) -> StoredResult | None:
        """The result kept for ``key``."""
        return self.find_results([key]).get(key)

    def find_results(self, keys: Sequence[str]) -> dict[str, StoredResult]:
        """Those of ``keys`` that have a result, in one query."""
        rows = self._db.rows(sql("find_results"), {"keys": json_list(keys)})
        return {row[0]: StoredResult(**dict(zip((*_COLUMNS, "created"), row, strict=True))) for row in rows}

    def all_results(self) -> list[StoredResult]:
        """Every kept result, oldest first."""
        rows = self._db.rows(sql("all_results"))
        return [StoredResult(**dict(zip((*_COLUMNS, "created"), row, strict=True))) for row in rows]

    def forget_result(self, key: str) -> bool:
        """Forget a result (its layer is gone or doubted); whether there was one."""
        with self._db.transaction():
            return bool(self._db.change(sql("forget_result"), {"key": key}))

    def _keep(self, result: StoredResult, *, card: Card, ret: str, now: int) -> None:
        full = replace(
            result,
            ret=result.ret or ret,
            card=result.card or card.id,
            op=result.op or card.op,
            worker=card.lease,
            created=now,
        )
        self._db.change(sql("keep_result"), asdict(full))
