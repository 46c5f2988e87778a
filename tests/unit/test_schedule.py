"""The schedule: whose turn it is, and never the same run twice at once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from syncd.core.fold import Waiting
from syncd.core.schedule import FAILING, Lane, Schedule


def lane(run: str, first_id: int, priority: int = 0, *more_ids: int) -> Lane:
    return Lane(run, priority, [Waiting(i, f"n{i}", None) for i in (first_id, *more_ids)])


def order(schedule: Schedule) -> list[str]:
    """The runs in the order in which they are taken."""
    taken = []
    while (one := schedule.take()) is not None:
        taken.append(one.run)
    return taken


def loading(*lanes: Lane) -> Schedule:
    schedule = Schedule()
    schedule.add(lanes)
    return schedule


def test_higher_priority_goes_first_then_the_oldest_patch() -> None:
    schedule = loading(lane("young", 9), lane("old", 1), lane("urgent", 20, 5), lane("mid", 3, 5))

    assert order(schedule) == ["mid", "urgent", "old", "young"]


def test_a_run_that_is_out_is_not_taken_again_until_it_is_let_go() -> None:
    schedule = loading(lane("r", 1))
    schedule.take()
    schedule.add([lane("r", 1)])

    assert schedule.take() is None
    schedule.drop("r")
    schedule.add([lane("r", 2)])
    assert order(schedule) == ["r"]


def test_a_lane_given_back_goes_again_with_what_it_has_now() -> None:
    schedule = loading(lane("r", 1, 0, 5), lane("s", 3))
    taken = schedule.take()
    assert taken is not None
    taken.waiting = taken.waiting[1:]

    schedule.give_back(taken)

    assert order(schedule) == ["s", "r"]


def test_a_lane_given_back_with_nothing_left_is_not_loaded() -> None:
    schedule = loading(lane("r", 1))
    taken = schedule.take()
    assert taken is not None
    taken.waiting = []

    schedule.give_back(taken)

    assert schedule.take() is None
    assert schedule.runs == frozenset()


def test_a_lane_that_is_loaded_is_left_as_it_is() -> None:
    schedule = loading(lane("r", 1))
    schedule.add([lane("r", 7, 9)])

    taken = schedule.take()

    assert taken is not None
    assert taken.waiting[0].id == 1


def test_it_tells_which_runs_go_one_by_one() -> None:
    schedule = loading(lane("r", 1), lane("s", 2))
    taken = schedule.take()
    assert taken is not None
    taken.alone_until = 7

    assert schedule.alone_until == {"r": 7}
    schedule.drop("r")
    assert schedule.alone_until == {}


def test_an_urgent_arrival_pulls_its_whole_lane_forward() -> None:
    schedule = loading(lane("old", 1), lane("r", 2))

    assert schedule.arrived("r", 7)

    taken = schedule.take()
    assert taken is not None
    assert (taken.run, taken.priority, taken.more) == ("r", 7, True)
    assert taken.waiting[0].id == 2


def test_a_lane_that_has_what_was_met_needs_no_second_look() -> None:
    loaded = lane("r", 2, 0, 5, 9)
    schedule = loading(loaded)

    schedule.arrived("r", 0, 9)
    assert not loaded.more
    schedule.arrived("r", 0, 10)
    assert loaded.more


def test_a_lane_that_became_urgent_more_than_once_is_taken_once() -> None:
    schedule = loading(lane("r", 2))
    schedule.arrived("r", 1)
    schedule.arrived("r", 2)

    assert order(schedule) == ["r"]


def test_a_run_that_is_reserved_is_not_taken_until_it_is_let_go() -> None:
    schedule = loading(lane("ready", 1), lane("out", 2))
    schedule.take()
    schedule.drop("ready")
    schedule.take()

    assert schedule.reserve("ready")
    assert not schedule.reserve("ready")
    assert not schedule.reserve("out")
    schedule.add([lane("ready", 1)])
    assert schedule.arrived("ready", 9)
    assert schedule.take() is None
    schedule.drop("ready")
    schedule.add([lane("ready", 1)])
    assert order(schedule) == ["ready"]


def test_an_arrival_of_less_urgency_does_not_push_a_lane_back() -> None:
    schedule = loading(lane("r", 2, 3), lane("old", 1))

    schedule.arrived("r", 1)

    assert order(schedule) == ["r", "old"]


def test_an_arrival_for_a_run_that_is_out_is_kept_for_its_next_turn() -> None:
    schedule = loading(lane("r", 1), lane("s", 2))
    taken = schedule.take()
    assert taken is not None

    schedule.arrived("r", 9)
    schedule.give_back(taken)

    assert taken.more
    assert order(schedule) == ["r", "s"]


def test_an_arrival_for_a_run_that_is_not_held_is_told_so() -> None:
    assert not Schedule().arrived("r", 1)


def test_after_an_operator_changed_rows_nothing_that_was_read_is_trusted() -> None:
    schedule = loading(lane("out", 1), lane("ready", 2))
    taken = schedule.take()
    assert taken is not None

    schedule.forget()

    assert schedule.runs == {"out"}
    assert schedule.take() is None
    assert taken.more


def test_a_lane_loaded_again_stands_where_it_belongs_now() -> None:
    schedule = loading(lane("b", 1, priority=5))
    schedule.reserve("b")
    schedule.drop("b")

    schedule.add([lane("a", 2), lane("b", 3)])

    assert order(schedule) == ["a", "b"]


def test_beside_a_place_is_the_next_by_priority_then_by_age_that_failed_no_more() -> None:
    schedule = loading(*(lane(f"r{n}", n) for n in (1, 4, 6, 9)), lane("high", 5, 3))
    failing = lane("failing", 5)
    failing.failures = 2
    schedule.add([failing])

    taken = [schedule.take_beside((0, 5, ""), most) for most in (1, 1, 2, 1, 1, 1, 9)]

    runs = [one and one.run for one in taken]
    assert runs == ["r6", "r4", "failing", "r9", "r1", "high", None]
    assert schedule.take_run("r4") is None
    schedule.drop("r4")
    schedule.add([lane("r4", 7)])
    assert schedule.newcomer == "r4"
    assert (again := schedule.take_run("r4")) is not None
    assert again.waiting[0].id == 7


RUNS = st.sampled_from("abcd")
PRIORITIES = st.integers(-2, 2)


class ScheduleMachine(RuleBasedStateMachine):
    """Against a plain model: a set of ready lanes and a set of busy ones."""

    @initialize()
    def start(self) -> None:
        self.schedule = Schedule()
        self.ready: dict[str, Lane] = {}
        self.busy: dict[str, Lane] = {}
        self.next_id = 1

    def a_lane(self, run: str, priority: int) -> Lane:
        self.next_id += 2
        return lane(run, self.next_id, priority, self.next_id + 1)

    @rule(run=RUNS, priority=PRIORITIES, failures=st.integers(0, 3))
    def add(self, run: str, priority: int, failures: int) -> None:
        one = self.a_lane(run, priority)
        one.failures = failures
        self.schedule.add([one])
        if run not in self.ready and run not in self.busy:
            self.ready[run] = one

    @rule(steady=st.booleans())
    def take(self, steady: bool) -> None:
        taken = self.schedule.take(steady=steady)
        ready = [one for one in self.ready.values() if one.failures < FAILING or not steady]
        if taken is None:
            assert not ready
            return
        assert taken in ready, "a lane that keeps failing"
        assert self.ready.pop(taken.run) is taken, "a lane that was not ready"
        assert taken.run not in self.busy, "two requests for one run"
        assert all(taken.priority >= other.priority for other in ready)
        self.busy[taken.run] = taken

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), settled=st.integers(0, 2))
    def give_back(self, data: st.DataObject, settled: int) -> None:
        one = self.busy.pop(data.draw(st.sampled_from(sorted(self.busy))))
        one.waiting = one.waiting[settled:]
        one.failures = 0 if settled else one.failures
        self.schedule.give_back(one)
        if one.waiting:
            self.ready[one.run] = one

    @rule(run=RUNS)
    def reserve(self, run: str) -> None:
        reserved = self.schedule.reserve(run)

        assert reserved is (run not in self.busy)
        if reserved:
            self.ready.pop(run, None)
            self.busy[run] = Lane(run, 0, [])

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.busy)))
        del self.busy[run]
        self.schedule.drop(run)

    @rule(run=RUNS, priority=PRIORITIES)
    def arrived(self, run: str, priority: int) -> None:
        loaded = self.ready.get(run) or self.busy.get(run)

        assert self.schedule.arrived(run, priority) is (loaded is not None)

        if loaded is not None and loaded.waiting:
            assert loaded.more
            assert loaded.priority >= priority

    @rule()
    def forget(self) -> None:
        self.schedule.forget()
        self.ready.clear()

    @invariant()
    def holds_what_it_should(self) -> None:
        assert self.schedule.runs == self.ready.keys() | self.busy.keys()
        assert self.schedule.ready == len(self.ready)
        steady = [one for one in self.ready.values() if one.failures < FAILING]
        assert self.schedule.steady_ready == len(steady)
        assert self.schedule.failing_busy == sum(
            one.failures >= FAILING for one in self.busy.values()
        )


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=40)
