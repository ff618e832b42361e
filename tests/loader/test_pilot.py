"""The controller's hands: what is measured, handed on, carried out and said. A fake iterator, and time as given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import keepfed.loader.pilot as pilots
from keepfed.errors import LoaderError
from keepfed.events import Ended, LoaderSeen, Moved, Settled, Window
from keepfed.host.facts import read_host
from keepfed.loader.ceiling import ceiling
from keepfed.loader.home import READ_EPOCHS
from keepfed.loader.pilot import Pilot
from keepfed.loader.ranks import PATIENCE_WINDOWS, Agreement, Waits
from keepfed.plan import LoaderId, Plan
from keepfed.policy.controller import Hold, JudgedMove, Move, Reason
from keepfed.policy.controller import Settled as Verdict
from keepfed.policy.governor import Rung
from keepfed.policy.window import Observation
from keepfed.profile import HostProfile, LoaderProfile, Profile, write_profile
from tests.loader.steered import Steered, steered

ONE = Plan(1)
LOADER = LoaderId("train.py:41", "data.Photos")


class Iterated:
    """An iterator of which nothing but the plan is real: a batch takes `fetch_s` in one worker, the step 40 ms."""

    def __init__(self, plan: Plan, fetch_s: float = 0.16) -> None:
        self.plan, self.fetch_s = plan, fetch_s
        self.now_s = 100.0
        self.open, self.refusal = False, ""
        self.allowed: Rung | None = None
        self.room: int | None = None
        self.changes: list[Plan] = []
        self.broken = False

    def train(self, pilot: Pilot, seconds: float) -> None:
        """The program trains for so long."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            workers = max(1, self.plan.num_workers)
            cycle_s = max(0.040, self.fetch_s / workers)
            asked_s, self.now_s = self.now_s + 0.040, self.now_s + cycle_s + 0.0002
            for worker in self.active_workers():
                if worker == int(self.now_s * 1e3) % workers or pilot._made.get(worker, 0) < pilots.WARM_BATCHES:
                    pilot.made(worker, self.fetch_s, 0.001, 1000)
            pilot.delivered(self, min(asked_s, self.now_s), self.now_s)

    def undecided(self) -> bool:
        return self.open

    def refused(self) -> str:
        return self.refusal

    def change_plan(self, plan: Plan) -> None:
        if self.broken:
            raise LoaderError("no processes to be had")
        self.plan = plan
        self.changes.append(plan)

    def active_workers(self) -> list[int]:
        return list(range(self.plan.num_workers))

    def worker_bytes(self) -> float:
        return 1e6

    def transport_bytes(self) -> int:
        return 5000

    def memory_allowed(self) -> Rung | None:
        return self.allowed

    def memory_room(self) -> int | None:
        return self.room


class Scripted:
    """A controller that says what it was told to say, window by window."""

    def __init__(self, *said: Any) -> None:
        self.said = list(said)
        self.seen: list[Observation] = []
        self.log: list[JudgedMove] = []

    def observe(self, window: Observation) -> Any:
        self.seen.append(window)
        said = self.said.pop(0) if self.said else Hold(Reason("tune.reason_measuring", {}))
        if isinstance(said, tuple):
            self.log.append(said[0])
            said = said[1]
        return said

    @property
    def judged(self) -> int:
        return len(self.log)

    def estimate(self, plan: Plan) -> Any:
        rows = [window for window in self.seen if window.plan == plan]
        return _Estimate(rows) if rows else None


class _Estimate:
    def __init__(self, rows: list[Observation]) -> None:
        self.batches_per_s = sum(row.batches for row in rows) / sum(row.elapsed_s for row in rows)
        self.starve_share = sum(row.wait_s for row in rows) / sum(row.elapsed_s for row in rows)
        self.stall_share = None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steered]:
    monkeypatch.setattr("keepfed.host.busy.CoreClock.__call__", lambda _: [10.0] * 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with steered(tmp_path) as found:
        yield found


def pilot_of(host: Steered, asked: Plan = ONE, *said: Any) -> Pilot:
    pilot = Pilot(LOADER, 8, asked, host.fleet._session)
    host.fleet._pilots[LOADER] = pilot
    if said:
        pilot._controller = Scripted(*said)  # type: ignore[assignment]  # what a pilot asks of a controller
    return pilot


MEASURING = Hold(Reason("tune.reason_measuring", {}))
FACTS: dict[str, object] = {"workers": 4, "prefetch": 2, "before": 1, "prefetch_before": 2, "change": 1.0}
KEPT = JudgedMove(Plan(4), 24.9, 25.0, 0.01, kept=True, reason=Reason("tune.reason_more_kept", FACTS))
DONE = Verdict(
    Plan(4),
    "step",
    Reason("tune.reason_limit_step", {"workers": 4, "prefetch": 2, "wait_share": 0.0, "busy": 0.9, "cores": 2.0}),
)


def test_a_loader_is_announced_with_what_it_asked_for(host: Steered) -> None:
    pilot_of(host, Plan(2, 3))
    (seen,) = host.events(LoaderSeen)
    assert (seen.loader, seen.batch_size, seen.asked, seen.used) == (LOADER, 8, Plan(2, 3), Plan(2, 3))
    assert (seen.source, seen.handled, seen.reason) == ("program", True, "")
    assert "--exact" in seen.note


def test_windows_moves_and_the_end_are_told_in_order(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1), MEASURING, Move(Plan(4), KEPT.reason), MEASURING, (KEPT, DONE))
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 30)
    host.fleet.close()
    told = host.events()
    kinds = [type(event) for event in told]
    assert kinds[:3] == [kinds[0], LoaderSeen, Window]
    assert kinds.count(Settled) == kinds.count(Moved) == 1
    assert kinds.index(Moved) < kinds.index(Settled)
    assert iterated.changes == [Plan(4)]
    windows = host.events(Window)
    assert [window.plan for window in windows[:4]] == [Plan(1), Plan(1), Plan(4), Plan(4)]
    for window in windows:
        assert window.loader == LOADER
        assert window.elapsed_s >= 2.0
        assert 0 <= window.wait_s <= window.elapsed_s
        assert window.stall_s is None
        assert window.rss_bytes == 1_000_000 * window.plan.num_workers + 5000
    assert windows[0].wait_s / windows[0].elapsed_s == pytest.approx(0.75, abs=0.02)


def test_the_settled_record_has_before_and_after(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1), MEASURING, Move(Plan(4), KEPT.reason), MEASURING, (KEPT, DONE))
    Iterated(pilot.plan).train(pilot, 30)
    (settled,) = host.events(Settled)
    assert (settled.plan, settled.before, settled.limited_by) == (Plan(4), Plan(1), "step")
    assert settled.before_batches_per_s == pytest.approx(6.25, rel=0.02)
    assert settled.batches_per_s == pytest.approx(24.9, rel=0.02)
    assert settled.before_wait_share > 0.7
    assert settled.wait_share < 0.02
    assert settled.stall_share is None
    assert settled.reason
    (moved,) = host.events(Moved)
    assert (moved.plan, moved.kept, moved.batches_per_s) == (Plan(4), True, 24.9)
    assert moved.reason


def test_the_real_controller_finds_its_way_from_one_worker(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1))
    Iterated(pilot.plan).train(pilot, 300)
    (settled,) = host.events(Settled)
    assert 4 <= settled.plan.num_workers <= 6
    assert settled.limited_by == "step"
    assert pilot.plan == settled.plan
    assert pilot._session.agreement.announced(LOADER) == settled.plan


def test_while_memory_allows_less_the_controller_stays_within_that_and_then_looks_again(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1))
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 100)
    assert pilot.plan.num_workers >= 4
    iterated.allowed = Rung(2, 2)
    iterated.train(pilot, 200)
    assert pilot.plan == iterated.plan == Plan(2, 1)
    assert host.events(Settled)[-1].limited_by == "memory"
    iterated.allowed = None
    iterated.train(pilot, 200)
    assert pilot.plan.num_workers >= 4


def test_the_search_begins_anew_later_each_time(host: Steered) -> None:
    pilot = pilot_of(host, Plan(4))
    iterated = Iterated(pilot.plan)
    controllers = []
    for _ in range(4):
        iterated.allowed = Rung(1, 1)
        iterated.train(pilot, 10)
        iterated.allowed = None
        before, began_s = pilot._controller, iterated.now_s
        while pilot._controller is before:
            iterated.train(pilot, 1)
        controllers.append(iterated.now_s - began_s)
    assert all(later > 1.5 * sooner for sooner, later in itertools.pairwise(controllers))


def test_no_plan_is_tried_for_which_there_is_no_room_now(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1))
    iterated = Iterated(pilot.plan)
    iterated.room = 2_300_000  # of workers that take 1 MB each
    iterated.train(pilot, 100)
    assert pilot.plan.num_workers == 2
    iterated.room = 1_100_000
    iterated.train(pilot, 100)
    assert pilot.plan.num_workers == 1


def test_a_memory_limit_bounds_what_is_planned(host: Steered) -> None:
    limited = Pilot(LOADER, 8, ONE, host.fleet._session, memory_limit_bytes=100 << 20)
    assert limited._bounds.memory_bytes == pytest.approx(90 << 20, rel=0.01)
    boundless = Pilot(LOADER, 8, ONE, host.fleet._session, memory_limit_bytes=1 << 60)
    assert boundless._bounds.memory_bytes == pilot_of(host)._bounds.memory_bytes


def test_nothing_is_told_or_judged_while_it_is_open_whether_workers_may_be_used(host: Steered) -> None:
    pilot = pilot_of(host, Plan(0), MEASURING)
    iterated = Iterated(pilot.plan)
    iterated.open = True
    iterated.train(pilot, 20)
    assert host.events(Window) == []
    iterated.open = False
    iterated.train(pilot, 5)
    assert host.events(Window)


def test_a_program_that_may_have_no_workers_settles_on_none_and_says_why(host: Steered) -> None:
    pilot = pilot_of(host, Plan(0))
    iterated = Iterated(pilot.plan)
    iterated.refusal = "the loop changes the dataset"
    iterated.train(pilot, 60)
    (settled,) = host.events(Settled)
    assert settled.plan.num_workers == 0
    assert settled.reason == "stays at num_workers=0: the loop changes the dataset"
    assert iterated.changes == []


def test_coming_home_is_told_once_and_settles_anew(host: Steered) -> None:
    pilot = pilot_of(host, Plan(0))
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 100)
    (first,) = host.events(Settled)
    assert first.plan.num_workers >= 3
    iterated.refusal, iterated.plan = "a worker died", Plan(0)
    pilot.back_to_zero(iterated.refusal)
    pilot.back_to_zero("again")
    home = [moved for moved in host.events(Moved) if "a worker died" in moved.reason]
    assert [(moved.plan, moved.kept) for moved in home] == [(first.plan, False)]
    assert pilot._session.agreement.announced(LOADER) == Plan(0)
    iterated.train(pilot, 60)
    assert host.events(Settled)[-1].plan == Plan(0)
    assert len(host.events(Settled)) == 2


def test_where_no_process_can_be_had_training_goes_on_and_the_search_ends(host: Steered) -> None:
    pilot = pilot_of(host, Plan(1))
    iterated = Iterated(pilot.plan)
    iterated.broken = True
    iterated.train(pilot, 120)
    assert pilot.plan == Plan(1)
    assert pilot._session.agreement.announced(LOADER) == Plan(1)
    assert host.events(Settled)[-1].plan == Plan(1)


def test_later_ranks_take_the_announced_plan_and_try_nothing(host: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    host.fleet._session.agreement.announce(LOADER, Plan(5, 3))
    host.fleet._session.agreement.decides = False
    pilot = pilot_of(host, Plan(1))
    assert host.events(LoaderSeen)[-1].source == "rank"
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 60)
    assert iterated.changes == [Plan(5, 3)]
    assert pilot.plan == Plan(5, 3)
    assert host.events(Settled) == []


def test_a_later_rank_takes_only_what_it_may(host: Steered) -> None:
    agreement = host.fleet._session.agreement
    agreement.announce(LOADER, Plan(1000, 900))
    agreement.decides = False
    pilot = pilot_of(host, Plan(1))
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 10)
    assert iterated.changes == [pilot._bounds.clamp(Plan(1000, 900))]
    refused = pilot_of(host, Plan(0))
    alone = Iterated(refused.plan)
    alone.refusal = "a cache"
    alone.train(refused, 20)
    assert alone.changes == []


# ------------------------------------------------------------------------------------------------------- without workers


class Known:
    """What a pilot asks of a loader's home."""

    def __init__(self, refused: str = "", epochs: int = READ_EPOCHS + 1) -> None:
        self.refused, self.epochs = refused, epochs


def may_go_home(host: Steered, *said: Any) -> Pilot:
    pilot = Pilot(LOADER, 8, Plan(2), host.fleet._session, may_go_home=True)
    host.fleet._pilots[LOADER] = pilot
    if said:
        pilot._controller = Scripted(*said)  # type: ignore[assignment]  # what a pilot asks of a controller
        pilot._controller.bounds = pilot._bounds
        pilot._controller.epoch_ended = lambda: Move(Plan(0), Reason("tune.reason_measuring", {}))  # type: ignore[method-assign]  # as above
    return pilot


def test_it_goes_without_workers_only_from_one_epoch_to_the_next_and_of_a_loader_that_it_knows(host: Steered) -> None:
    pilot = may_go_home(host, MEASURING)
    for epochs in range(1, READ_EPOCHS + 1):
        pilot.begin_epoch(Known(epochs=epochs))  # type: ignore[arg-type]  # what is asked of it
        assert pilot.plan == Plan(2)
    home: Any = Known()
    pilot.begin_epoch(home)
    assert pilot.plan == Plan(0)
    pilot.begin_epoch(home)
    assert pilot.plan == Plan(0)
    pilot.begin_epoch(Known(epochs=1))  # type: ignore[arg-type]  # of a loader that was built anew
    assert pilot.plan == Plan(2)
    pilot.begin_epoch(Known())  # type: ignore[arg-type]  # as above
    assert pilot.plan == Plan(2)
    (moved,) = host.events(Moved)
    assert (moved.plan, moved.kept) == (Plan(0), False)


def test_the_way_back_to_no_workers_waits_for_the_next_epoch_and_nothing_is_judged_until_then(host: Steered) -> None:
    back = Move(Plan(0), Reason("tune.reason_back", {"workers": 0, "prefetch": 2}))
    pilot = may_go_home(host, MEASURING, back, Move(Plan(5), Reason("tune.reason_measuring", {})))
    pilot._controller.epoch_ended = lambda: MEASURING  # type: ignore[method-assign]  # as above
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 60)
    assert iterated.changes == []
    assert len(pilot._controller.seen) == 2  # type: ignore[union-attr]  # of a Scripted
    pilot.begin_epoch(Known())  # type: ignore[arg-type]  # what is asked of it
    assert pilot.plan == Plan(0)
    iterated.plan = Plan(0)
    iterated.train(pilot, 20)
    assert iterated.changes == [Plan(5)]


def test_what_was_refused_is_not_tried_and_the_controller_knows(host: Steered) -> None:
    pilot = may_go_home(host, MEASURING)
    pilot.begin_epoch(Known(refused="a cache"))  # type: ignore[arg-type]  # what is asked of it
    assert (pilot.plan, pilot._controller.bounds.zero_allowed, pilot._controller.bounds.min_workers) == (
        Plan(2),
        False,
        1,
    )
    assert "a cache" in str(pilot.tally.journal.read(pilot.plan))  # type: ignore[union-attr]  # made by the pilot
    assert host.events(Moved) == []


def test_a_later_rank_goes_without_workers_from_its_next_epoch_on_and_back_at_once(host: Steered) -> None:
    agreement, pilot = host.fleet._session.agreement, may_go_home(host)
    agreement.announce(LOADER, Plan(0))
    agreement.decides = False
    iterated = Iterated(pilot.plan)
    iterated.train(pilot, 10)
    assert iterated.changes == []
    pilot.begin_epoch(Known())  # type: ignore[arg-type]  # what is asked of it
    assert pilot.plan == Plan(0)
    agreement.decides = True
    agreement.announce(LOADER, Plan(3))
    agreement.decides = False
    iterated.plan = Plan(0)
    iterated.train(pilot, 10)
    assert iterated.changes == [Plan(3)]


# ------------------------------------------------------------------------------------------------------------- plan files


def profile(folder: Path, fingerprint: str) -> str:
    path = folder / "keepfed.toml"
    write_profile(path, Profile(HostProfile(fingerprint), (LoaderProfile(LOADER, Plan(5, 3)),)))
    return str(path)


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepfed.host.busy.CoreClock.__call__", lambda _: [10.0] * 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("_quiet")
def test_a_plan_of_this_host_is_used_and_not_searched_again(tmp_path: Path) -> None:
    with steered(tmp_path, plan_file=profile(tmp_path, read_host().fingerprint)) as host:
        pilot = pilot_of(host, Plan(1))
        (seen,) = host.events(LoaderSeen)
        assert (seen.used, seen.source) == (Plan(5, 3), "plan")
        iterated = Iterated(pilot.plan)
        iterated.train(pilot, 100)
        assert iterated.changes == []


@pytest.mark.usefixtures("_quiet")
def test_a_plan_of_another_host_is_a_first_guess_and_searched_from(tmp_path: Path) -> None:
    with steered(tmp_path, plan_file=profile(tmp_path, "another-host")) as host:
        pilot = pilot_of(host, Plan(1))
        (seen,) = host.events(LoaderSeen)
        assert (seen.used, seen.source) == (Plan(5, 3), "first-guess")
        Iterated(pilot.plan).train(pilot, 200)
        assert len(host.events(Settled)) == 1


def test_tuning_starts_from_what_the_program_asks(tmp_path: Path) -> None:
    with steered(tmp_path, plan_file=profile(tmp_path, read_host().fingerprint), mode="tune") as host:
        assert pilot_of(host, Plan(1)).plan == Plan(1)


def test_a_plan_file_that_was_spoilt_since_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "keepfed.toml").write_text("schema = [", encoding="utf-8")
    with steered(tmp_path, plan_file=str(tmp_path / "keepfed.toml")) as host:
        assert pilot_of(host, Plan(2)).plan == Plan(2)


# ----------------------------------------------------------------------------------------------------------------- bounds


def test_the_ceiling_never_lies_below_what_the_program_asks_for() -> None:
    facts = read_host()
    for asked in (Plan(0), Plan(1), Plan(100, 50), Plan(1024)):
        bounds = ceiling(facts, asked)
        assert bounds.max_workers >= asked.num_workers
        assert bounds.clamp(asked) == asked
    assert ceiling(facts, Plan(0)).min_workers == 0
    assert ceiling(facts, Plan(1)).min_workers == 1


def test_memory_is_divided_among_the_ranks() -> None:
    facts = read_host()
    both = replace(facts, ranks=replace(facts.ranks, count=2))
    assert ceiling(both, Plan(1)).memory_bytes == pytest.approx(ceiling(facts, Plan(1)).memory_bytes / 2)


def test_the_last_words_are_what_was_delivered(host: Steered) -> None:
    pilot = pilot_of(host)
    pilot.tally.begin_epoch(1.0)
    pilot.tally.delivered(2.0, 3.0, 8)
    host.fleet.close()
    (ended,) = host.events(Ended)
    assert (ended.loader, ended.plan, ended.batches, ended.elapsed_s, ended.wait_s) == (LOADER, Plan(1), 1, 2.0, 1.0)


def test_the_deciding_rank_judges_by_the_rank_that_waits_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In lock step whoever has data waits in the collective operation: its own loop looks as if the step were long."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    window = Observation(Plan(1), 10.0, batches=10, elapsed_s=2.0, wait_s=0.0)
    with steered(tmp_path) as host:
        pilot = pilot_of(host, ONE, MEASURING)
        iterated = Iterated(pilot.plan)
        pilot._judge(window, iterated)
        assert host.events(Window) == []  # nobody has said yet how the other rank waits
        monkeypatch.setenv("LOCAL_RANK", "1")
        Agreement(host.run.path).report(LOADER, Plan(1), Waits(0.75, None))
        pilot._judge(window, iterated)
        assert [event.wait_s for event in host.events(Window)] == [1.5]


def test_a_rank_that_never_speaks_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    window = Observation(Plan(1), 10.0, batches=10, elapsed_s=2.0, wait_s=0.5)
    with steered(tmp_path) as host:
        pilot = pilot_of(host, ONE, MEASURING)
        for _ in range(PATIENCE_WINDOWS + 1):
            pilot._judge(window, Iterated(pilot.plan))
        assert [event.wait_s for event in host.events(Window)] == [0.5]


def test_an_error_of_ours_ends_the_steering_and_not_the_training(
    host: Steered, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Pilot, "_note", broken)
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.arange(12)), batch_size=2, num_workers=1)
    assert sum(1 for _ in host.iterator(loader)) == 6
    assert [record.getMessage().count("no longer steered") for record in caplog.records] == [1]
