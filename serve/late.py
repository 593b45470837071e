"""What takes longer than was said: calls, and tasks that wait behind them and would be done sooner elsewhere."""

from collections.abc import Callable, Hashable, Iterator, Mapping

from cluster.dispatch import Dispatcher
from cluster.rerouting import Patience, Promise, completions, is_worth_moving, latest
from serve.tasks import StoredTask
from serve.waiting import Waiting
from serve.wants import wanted_of

_MOST = 20  # a round asks routing for no more
_CALL_S, _CALL_SHARE = 2.0, 0.5  # a call that is late takes so much longer, or such a share of what it took


def mind_calls(policy: Dispatcher, begun: Mapping[str, float], now: float) -> None:
    """What takes longer than predicted goes on for a while yet: nobody queues behind it as if it ended now.

    `begun`: when each replica was given what it does.
    """
    for lane in policy.timelines.lanes:
        at = begun.get(str(lane.name))
        if lane.running is not None and lane.until_s <= now and at is not None:
            policy.extend(lane.name, max(_CALL_S, _CALL_SHARE * (now - at)), now)


class LateTasks:
    """Of one broker, which has the lock."""

    def __init__(self, policy: Dispatcher, waiting: Waiting, variant_of: Callable[[Hashable], str]) -> None:
        """`variant_of` a replica."""
        self._policy, self._waiting, self._variant_of = policy, waiting, variant_of
        self._patience = Patience()
        self._moved: dict[int, float] = {}  # when

    def to_move(self, now: float) -> Iterator[StoredTask]:
        """Tasks that would be done sooner as another variant, within what their clients allow. Whoever takes one
        submits it again before the next is asked for: each sees where the others went."""
        self._moved = {seq: at for seq, at in self._moved.items() if now - at < self._patience.rest_s}
        for late in latest(self._promises(now), _MOST, self._patience):
            place, task = self._policy.timelines.waiting.get(late.task), self._waiting.get(late.task)
            if place is None or task is None:
                continue
            wanted = wanted_of(task, self._waiting.groups(task.seq))
            choice = self._policy.preview(wanted, now, admitted=True)
            is_elsewhere = choice.routed and choice.variant != self._variant_of(place)
            if is_elsewhere and is_worth_moving(late.completion_s, choice.completion_s, now, self._patience):
                self._moved[task.seq] = now
                yield task

    def _promises(self, now: float) -> Iterator[tuple[Promise, float]]:
        for seq, completion_s in completions(self._policy.timelines, now):
            task = self._waiting.get(seq)
            # Who can go nowhere else is not asked.
            if task is not None and seq not in self._moved and len(self._waiting.groups(seq)) > 1:
                yield Promise(seq, task.created_at, task.offer.eta_p90_at), completion_s
