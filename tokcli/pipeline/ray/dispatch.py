"""Who has which item in a run on Ray, and which item it was that an actor died of."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tokcli.pipeline.ray.messages import Order, Outcome

MAX_DEATHS = 3
"""Deaths of actors that had an item in work, before it counts as their cause; the last of them had nothing else."""
# What an actor has beside the items that its decoders work on: enough for the time of asking for more.
ASKING_SECONDS = 0.5
LEAST_AHEAD, MAX_AHEAD = 2, 256


@dataclass
class Hand:
    """What one actor has got."""

    in_work: dict[str, Order] = field(default_factory=dict)
    uncommitted: dict[str, tuple[Order, Outcome]] = field(default_factory=dict)
    """Finished, but gone if the actor dies before its next commit."""
    alone: bool = False
    """It works on a suspect, so it gets nothing else."""
    rate: float = 0.0
    """Items a second, lately."""


class Dispatcher:
    """Hands out orders in their sequence, and once more what an actor lost.

    When an actor dies, any item that it had in work may be the cause. Such suspects are handed out one by one, each to
    an actor that has nothing else, so that the next death has one cause only.
    """

    def __init__(self, orders: Iterable[Order], decoders: int) -> None:
        self._waiting = deque(orders)
        self._suspects: deque[Order] = deque()
        self._deaths: dict[str, int] = {}
        self._hands: dict[int, Hand] = {}
        self._decoders = decoders

    @property
    def finished(self) -> bool:
        """Whether everything is made and committed."""
        return not self.left and not any(hand.in_work or hand.uncommitted for hand in self._hands.values())

    @property
    def left(self) -> int:
        """Orders that nobody has."""
        return len(self._waiting) + len(self._suspects)

    def hand(self, actor: int) -> Hand:
        return self._hands.setdefault(actor, Hand())

    def next_for(self, actor: int, actors: int) -> list[Order]:
        """What an actor, one of so many, is to get now."""
        hand = self.hand(actor)
        if hand.alone and hand.in_work:
            return []
        hand.alone = False
        if self._suspects and not hand.in_work:
            hand.alone = True
            return self._take(hand, self._suspects, 1)
        # Towards the end less, or the last actor would still have a heap when the others have nothing.
        fair = max(1, -(-len(self._waiting) // (2 * actors)))
        return self._take(hand, self._waiting, self._decoders + min(self._ahead(hand), fair) - len(hand.in_work))

    def low(self, actor: int) -> int:
        """How few orders may lie before an actor's decoders when it comes back for more; -1: there are no more."""
        hand = self.hand(actor)
        return -1 if hand.alone or not self._waiting else self._ahead(hand) // 2

    @staticmethod
    def _ahead(hand: Hand) -> int:
        return max(LEAST_AHEAD, min(MAX_AHEAD, int(hand.rate * ASKING_SECONDS)))

    @staticmethod
    def _take(hand: Hand, orders: deque[Order], count: int) -> list[Order]:
        taken = [orders.popleft() for _ in range(min(max(0, count), len(orders)))]
        hand.in_work |= {order.item.id: order for order in taken}
        return taken

    def finish(self, actor: int, outcomes: Collection[Outcome], seconds: float) -> None:
        """Note what an actor finished in the last ``seconds``."""
        hand = self.hand(actor)
        for outcome in outcomes:
            hand.uncommitted[outcome.item_id] = (hand.in_work.pop(outcome.item_id), outcome)
            self._deaths.pop(outcome.item_id, None)
        if outcomes:
            hand.rate = len(outcomes) / max(seconds, 1e-3)

    def commit(self, actor: int, item_ids: Iterable[str]) -> None:
        """Note what an actor has committed."""
        for item_id in item_ids:
            del self.hand(actor).uncommitted[item_id]

    def died(self, actor: int, missing: Mapping[str, Order], node_too: bool) -> list[Order]:
        """Take back what an actor had that is dead; gives the orders that are not to be tried again.

        Args:
            missing: By id, what the caches still miss of the items that it had.
            node_too: Its node is gone, so that no item can be the cause.
        """
        hand = self._hands.pop(actor, Hand())
        again = [missing[item_id] for item_id in hand.uncommitted if item_id in missing]
        in_work = [missing[item_id] for item_id in hand.in_work if item_id in missing]
        guilty = []
        for order in in_work:
            if node_too:
                again.append(order)
                continue
            deaths = self._deaths[order.item.id] = self._deaths.get(order.item.id, 0) + 1
            if deaths >= MAX_DEATHS and len(in_work) == 1:
                guilty.append(order)
            else:
                self._suspects.append(order)
        self._waiting.extendleft(reversed(again))
        return guilty

    def had(self, actor: int) -> list[Order]:
        """All orders of an actor that it has not reported as committed."""
        hand = self.hand(actor)
        return [*hand.in_work.values(), *(order for order, _ in hand.uncommitted.values())]
