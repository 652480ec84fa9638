"""Who gets which item on a cluster, what becomes of it when its actor dies, how large actors are. No Ray in here."""

from __future__ import annotations

import random

import pytest

from tokcli.errors import UsageError
from tokcli.pipeline.ray.dispatch import LEAST_AHEAD, MAX_AHEAD, MAX_DEATHS, Dispatcher
from tokcli.pipeline.ray.messages import Order, Outcome
from tokcli.pipeline.ray.sizes import Node, Sizes, plan_sizes
from tokcli.recipe import CompressRecipe
from tokcli.types import MediaItem


def orders(count: int) -> list[Order]:
    return [Order(MediaItem(f"{number}", f"{number}.mp4", 10, 1), (0,)) for number in range(count)]


def ids(given: list[Order]) -> list[str]:
    return [order.item.id for order in given]


def finish(dispatcher: Dispatcher, actor: int, *item_ids: str, seconds: float = 1.0) -> None:
    dispatcher.finish(actor, [Outcome(item_id, (0,), ()) for item_id in item_ids], seconds)


def lose(dispatcher: Dispatcher, actor: int, *committed: str, node_too: bool = False) -> list[str]:
    missing = {order.item.id: order for order in dispatcher.had(actor) if order.item.id not in committed}
    return ids(dispatcher.died(actor, missing, node_too))


def test_orders_go_out_in_their_sequence_a_few_at_a_time() -> None:
    dispatcher = Dispatcher(orders(100), decoders=2)
    assert ids(dispatcher.next_for(0, actors=2)) == ["0", "1", "2", "3"]
    assert ids(dispatcher.next_for(1, actors=2)) == ["4", "5", "6", "7"]
    assert dispatcher.next_for(0, actors=2) == []
    finish(dispatcher, 0, "1")
    assert ids(dispatcher.next_for(0, actors=2)) == ["8"]
    assert not dispatcher.finished


def test_who_is_fast_gets_more_at_a_time_and_towards_the_end_less() -> None:
    dispatcher = Dispatcher(orders(10_000), decoders=1)
    first = dispatcher.next_for(0, actors=1)
    finish(dispatcher, 0, *ids(first), seconds=0.01)
    assert len(dispatcher.next_for(0, actors=1)) == 1 + 150  # three items in a hundredth, for half a second
    assert dispatcher.low(0) == 75
    finish(dispatcher, 0, *dispatcher.hand(0).in_work, seconds=0.001)
    assert len(dispatcher.next_for(0, actors=1)) == 1 + MAX_AHEAD
    few = Dispatcher(orders(20), decoders=1)
    finish(few, 0, *ids(few.next_for(0, actors=2)), seconds=0.001)
    assert len(few.next_for(0, actors=2)) == 1 + 5  # seventeen are left: a quarter of them


def test_it_is_finished_when_all_is_committed() -> None:
    dispatcher = Dispatcher(orders(2), decoders=4)
    dispatcher.next_for(0, actors=1)
    dispatcher.next_for(0, actors=1)
    assert dispatcher.low(0) == -1
    finish(dispatcher, 0, "0", "1")
    assert not dispatcher.finished
    dispatcher.commit(0, ["0", "1"])
    assert dispatcher.finished
    assert Dispatcher([], decoders=1).finished


def test_what_a_dead_actor_had_not_committed_is_done_again() -> None:
    dispatcher = Dispatcher(orders(4), decoders=2)
    dispatcher.next_for(0, actors=1)
    dispatcher.next_for(0, actors=1)
    finish(dispatcher, 0, "0", "1")
    dispatcher.commit(0, ["0"])
    # 2 was committed, but its actor died before it could tell.
    assert lose(dispatcher, 0, "2") == []
    assert ids(dispatcher.next_for(0, actors=1)) == ["3"]  # it was in work: a suspect, alone
    assert dispatcher.next_for(0, actors=1) == []
    assert ids(dispatcher.next_for(1, actors=2)) == ["1"]
    finish(dispatcher, 0, "3")
    dispatcher.commit(0, ["3"])
    finish(dispatcher, 1, "1")
    dispatcher.commit(1, ["1"])
    assert dispatcher.finished


def test_the_items_of_a_lost_node_are_no_suspects() -> None:
    dispatcher = Dispatcher(orders(4), decoders=4)
    for _ in range(MAX_DEATHS + 1):
        while dispatcher.next_for(0, actors=1):
            pass
        assert sorted(dispatcher.hand(0).in_work) == ["0", "1", "2", "3"]
        assert lose(dispatcher, 0, node_too=True) == []


@pytest.mark.parametrize("poison", [0, 3, 7])
def test_the_item_that_kills_its_actors_is_found_and_no_other(poison: int) -> None:
    """Whoever gets the poisoned item dies of it, with all that it has in work and some that it had finished."""
    generator = random.Random(poison)
    dispatcher, guilty, done, deaths = Dispatcher(orders(12), decoders=2), [], set(), 0
    while not dispatcher.finished:
        for actor in (0, 1):
            dispatcher.next_for(actor, actors=2)
            hand = dispatcher.hand(actor)
            if str(poison) in hand.in_work and (hand.alone or generator.random() < 0.5):
                deaths += 1
                guilty += lose(dispatcher, actor)
                continue
            for item_id in [item_id for item_id in hand.in_work if item_id != str(poison)][:1]:
                finish(dispatcher, actor, item_id)
            if hand.uncommitted and (generator.random() < 0.5 or not dispatcher.left):
                done |= hand.uncommitted.keys()
                dispatcher.commit(actor, list(hand.uncommitted))
    assert guilty == [str(poison)]
    assert deaths == MAX_DEATHS
    assert done == {str(number) for number in range(12)} - {str(poison)}


def test_an_actor_with_a_suspect_gets_nothing_else_and_comes_back_when_it_is_done() -> None:
    dispatcher = Dispatcher(orders(9), decoders=1)
    had = ids(dispatcher.next_for(0, actors=1))
    assert len(had) == 1 + LEAST_AHEAD
    lose(dispatcher, 0)
    for item_id in had:
        assert ids(dispatcher.next_for(0, actors=1)) == [item_id]
        assert (dispatcher.hand(0).alone, dispatcher.low(0)) == (True, -1)
        finish(dispatcher, 0, item_id)
    assert len(dispatcher.next_for(0, actors=1)) == 1 + LEAST_AHEAD
    assert not dispatcher.hand(0).alone


def recipe(**values: object) -> CompressRecipe:
    return CompressRecipe(inputs=["a"], output="b", executor="ray", **values)


@pytest.mark.parametrize(
    ("nodes", "values", "expected"),
    [
        # (CPUs, GPUs) of the nodes; what the recipe says; actors, CPUs and GPUs of each
        ([(2, 0)], {}, (1, 2, 0)),
        ([(1, 0), (1, 0)], {}, (2, 1, 0)),
        ([(64, 0), (64, 0)], {}, (16, 8, 0)),
        ([(2, 0), (64, 0)], {}, (8, 8, 0)),
        ([(4, 0), (8, 0)], {}, (3, 4, 0)),
        ([(32, 4), (32, 4), (8, 0)], {}, (8, 8, 1)),
        ([(32, 4)], {"device": "cpu"}, (4, 8, 0)),
        ([(32, 4)], {"actor_gpus": 0.5}, (8, 4, 0.5)),
        ([(32, 4)], {"actors": 2, "actor_cpus": 3}, (2, 3, 1)),
        ([(64, 0)], {"actors": 100}, (20, 8, 0)),  # no more than there are items
    ],
)
def test_sizes_of_actors(
    nodes: list[tuple[float, float]], values: dict[str, object], expected: tuple[int, int, float]
) -> None:
    assert plan_sizes([Node("", *node) for node in nodes], recipe(**values), items=20) == Sizes(*expected)


def test_an_actor_that_fits_nowhere_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"of 9 CPUs and 0 GPUs; the nodes have 8 CPUs, 0 GPUs; 4 CPUs, 0 GPUs"):
        plan_sizes([Node("", 8, 0), Node("", 4, 0)], recipe(actor_cpus=9), items=5)
    with pytest.raises(UsageError, match="of 1 CPUs and 1 GPUs"):
        plan_sizes([Node("", 8, 0)], recipe(device="cuda"), items=5)
