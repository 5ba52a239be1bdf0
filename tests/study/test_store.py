"""The store by itself: nothing is trained here."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from convscope.compute import present
from convscope.errors import FailedError, FolderInUseError, SettingError
from convscope.study import dump_study, read_study
from convscope.study.draws import drawn_beforehand
from convscope.study.folder import run_of
from convscope.study.store import Store, deaths_of, life_of, outcome_of, owner_of, seconds_of
from tests.compute.names import name_of_a_dead_process
from tests.study.databases import postgresql

__all__ = ["postgresql"]

GRID = (
    "{data: mnist, net: net1, sweep: {net.width: [6, 12], recipe.augmentation: [{crop: 1}, {crop: 2}]}, seeds: [0, 5]}"
)
SEARCH = """{data: mnist, net: net1, seeds: [0, 5], sampler: random, budget: {runs: 12},
sweep: {net.width: {low: 4, high: 64, log: true}, recipe.rate: {low: 1e-4, high: 0.1, log: true}, net.init: [he, xavier]}}"""

Open = Callable[..., Store]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    opened = []

    def make(text: str = GRID, url: str | None = None, name: str = "study") -> Store:
        (tmp_path / name).mkdir(exist_ok=True)
        store = Store(tmp_path / name, read_study(text, "study.yaml"), url)
        opened.append(store)
        store.fill()
        return store

    yield make
    for store in opened:
        store.close()


def test_a_grid_is_claimed_in_order_every_setting_before_the_next_seed(open_store: Open) -> None:
    store, claims = open_store(), []
    while claim := store.claim():
        claims.append(claim)
    assert [(claim.number, claim.seeds) for claim in claims] == [(n, (s,)) for s in (0, 5) for n in (1, 2, 3, 4)]
    assert claims[1].settings == {"net.width": 6, "recipe.augmentation": {"crop": 2}}
    assert run_of(Path("study"), claims[5].number, 5).path == Path("study/runs/0002-s5")
    assert [trial.params["net.width"] for trial in store.trials()] == [6, 6, 12, 12] * 2  # for Optuna's own tools


def test_filling_twice_and_a_larger_budget(open_store: Open) -> None:
    small = GRID.replace("seeds:", "budget: {runs: 3}, seeds:")
    assert len(open_store(small).trials()) == 3
    assert len(open_store(small).trials()) == 3
    assert len(open_store(GRID).trials()) == 8
    assert len(open_store(small).trials()) == 3
    last = open_store(small)
    assert [last.claim() is not None for _ in range(4)] == [True, True, True, False]


def test_results_are_told_and_kept(open_store: Open) -> None:
    store = open_store()
    first, second, third = (store.claim() for _ in range(3))
    assert first
    assert second
    assert third
    store.finish(first, 0.75, 2.5)
    store.fail(second, "diverged", "the loss is nan", 1.0)
    store.fail(third, "pruned", "worse", 1.0)
    done, diverged, pruned, *_ = open_store().trials()
    assert (done.state, done.value, seconds_of(done)) == (TrialState.COMPLETE, 0.75, 2.5)
    assert (diverged.state, outcome_of(diverged)["message"]) == (TrialState.FAIL, "the loss is nan")
    assert pruned.state == TrialState.PRUNED


def test_a_heartbeat_is_seen_until_the_end_and_does_no_harm_after_it(open_store: Open) -> None:
    store = open_store()
    claim = store.claim()
    assert claim
    held = store.look(claim)
    store.heartbeat(held)
    assert life_of(store.look(claim)) not in (life_of(held), (None, None))
    store.finish(claim, 0.5, 1.0)
    store.heartbeat(held)
    assert store.look(claim).state == TrialState.COMPLETE


def test_a_requeued_unit_is_claimed_again_with_the_same_settings(open_store: Open) -> None:
    store = open_store(SEARCH)
    claim = store.claim()
    assert claim
    held = store.look(claim)
    assert owner_of(held) == store.owner
    assert store.requeue(held, died=True)
    assert not store.requeue(held, died=True)  # it has moved on
    again = next(each for each in iter(store.claim, None) if each.trial == claim.trial)
    assert again.settings == claim.settings
    assert deaths_of(store.look(again)) == 1


def test_what_one_has_that_was_requeued_meanwhile_is_not_told(open_store: Open) -> None:
    store = open_store()
    claim = store.claim()
    assert claim
    store.requeue(store.look(claim))
    store.finish(claim, 0.5, 1.0)
    assert store.look(claim).state == TrialState.WAITING


def test_a_unit_that_is_marked_as_failed_has_failed(open_store: Open) -> None:
    store = open_store()
    claim = store.claim()
    assert claim
    assert not store.mark_failed(store.look(claim), "it goes on")
    store.requeue(store.look(claim), died=True)
    assert store.mark_failed(store.look(claim), "its worker died")
    assert outcome_of(store.look(claim)) == {"state": "failed", "message": "its worker died"}


def test_units_of_processes_that_are_no_more_wait_again(open_store: Open) -> None:
    store = open_store()
    mine, theirs = store.claim(), store.claim()
    assert mine
    assert theirs
    theirs.asked.set_user_attr("owner", name_of_a_dead_process())
    assert store.requeue_orphans() == 1
    states = [trial.state for trial in store.trials()][:2]
    assert states == [TrialState.RUNNING, TrialState.WAITING]
    assert deaths_of(store.look(theirs)) == 0  # that everything was killed is not the run's fault


@pytest.mark.parametrize("text", [GRID, SEARCH], ids=["grid", "random"])
def test_of_a_driver_the_units_are_in_memory_and_nobody_else_takes_one(open_store: Open, text: str) -> None:
    first = open_store(text)
    before = first.claim()
    assert before
    first.requeue(first.look(before), died=True)
    first.close()
    driver = open_store(text)
    driver.drive()
    driver.fill()
    claims = [claim for claim in iter(driver.claim, None) if claim]
    settings = [claim.settings for claim in claims]
    assert claims[0] == replace(before, asked=claims[0].asked)
    assert deaths_of(driver.look(claims[0])) == 1  # what the file knew
    driver.finish(claims[0], 0.5, 3.0)
    driver.fail(claims[1], "diverged", "loss is nan", 1.0)
    assert driver.trials()[0].value == 0.5
    assert outcome_of(driver.trials()[1]) == {"state": "diverged", "message": "loss is nan"}
    with pytest.raises(FolderInUseError, match="a sweep on a cluster is at work on it; stop it, or wait for its end"):
        open_store(text)
    driver.close()
    after = open_store(text)  # whoever takes them finds in the folders of the runs what is done
    assert [claim.settings for claim in iter(after.claim, None) if claim] == settings


def test_a_driver_takes_no_study_that_another_process_works_on(open_store: Open) -> None:
    here, driver = open_store(), open_store()
    with present(here.owner):
        claim = here.claim()
        assert claim
        with pytest.raises(FolderInUseError, match="a sweep on this machine is at work on it"):
            driver.drive()
        here.requeue(here.look(claim))
        driver.drive()


def test_of_a_search_that_learns_a_driver_keeps_the_units_in_the_file(open_store: Open, tmp_path: Path) -> None:
    text = SEARCH.replace("random", "tpe")
    driver = open_store(text)
    driver.drive()
    claim = driver.claim()
    assert claim
    driver.finish(claim, 0.5, 3.0)
    driver.close()
    assert not list((tmp_path / "study").glob("*-wal"))
    assert open_store(text).trials()[0].value == 0.5


def test_a_random_search_does_not_depend_on_who_draws_and_is_known_beforehand(open_store: Open) -> None:
    one, two = open_store(SEARCH, name="a"), open_store(SEARCH, name="b")
    in_order = [claim.settings for claim in iter(one.claim, None)]
    other = open_store(SEARCH, name="b")
    turns = [store.claim() for _ in range(3) for store in (two, other)]
    assert sorted(map(str, in_order)) == sorted(str(claim.settings) for claim in turns if claim)
    assert drawn_beforehand(read_study(SEARCH, "s")) == in_order
    assert len({settings["net.width"] for settings in in_order}) > 3
    assert all(1e-4 <= settings["recipe.rate"] <= 0.1 for settings in in_order)


SMALL = """{data: mnist, net: net1, sampler: random, budget: {runs: 40}, sweep:
{net.width: {low: 4, high: 6}, recipe.rate: {low: 0.1, high: 0.3, step: 0.1}, net.init: [he, xavier]}}"""


@pytest.mark.parametrize(
    ("sampler", "budget"),
    [
        ("random", "runs: 40"),
        ("random", "minutes: 5"),
        ("tpe", "runs: 40"),
        pytest.param("tpe", "minutes: 5", marks=pytest.mark.slow),
    ],
)
def test_a_search_draws_no_setting_twice_and_ends_with_the_last(open_store: Open, sampler: str, budget: str) -> None:
    """Of 3 × 3 × 2 settings, by two that take turns; a fifth fails, and is not drawn again either."""
    text = SMALL.replace("random", sampler).replace("runs: 40", budget)
    stores, drawn = [open_store(text, name="a"), open_store(text, name="a")], []
    while claim := stores[len(drawn) % 2].claim():
        drawn.append(str(claim.settings))
        if len(drawn) % 5:
            stores[0].finish(claim, -claim.settings["net.width"], 1.0)
        else:
            stores[0].fail(claim, "diverged", "the loss is nan", 1.0)
    assert len(drawn) == len(set(drawn)) == 18
    if budget == "runs: 40" and sampler == "random":
        assert [str(settings) for settings in drawn_beforehand(read_study(text, "s"))] == drawn


def test_tpe_learns_from_what_is_told(open_store: Open) -> None:
    """The best width is 40: late draws are nearer to it than the first ten, which are random."""
    text = "{data: mnist, net: net1, sampler: tpe, budget: {runs: 40}, sweep: {net.width: {low: 4, high: 400}}}"
    store, widths = open_store(text), []
    for claim in iter(store.claim, None):
        widths.append(claim.settings["net.width"])
        store.finish(claim, -abs(widths[-1] - 40), 1.0)
    early, late = widths[:10], widths[-10:]
    assert sum(abs(w - 40) for w in late) < sum(abs(w - 40) for w in early) / 2


def test_minutes_alone_limit_no_number(open_store: Open) -> None:
    store = open_store(SEARCH.replace("runs: 12", "minutes: 1"))
    assert [claim.number for _, claim in zip(range(5), iter(store.claim, None), strict=False)] == [1, 2, 3, 4, 5]


def test_another_study_of_the_same_name_is_refused(open_store: Open) -> None:
    open_store()
    with pytest.raises(SettingError, match=r"study.db holds another study named 'study' \(sweep differ\)"):
        open_store(GRID.replace("[6, 12]", "[6]"))


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        ("nonsense", SettingError, "--storage nonsense: expected an address"),
        ("me:secret@host/studies", SettingError, "--storage …@host/studies: expected an address"),
        ("bogus://me:secret@x/y", FailedError, "the store of the study cannot be used"),
        ("bogus://x/y", FailedError, "the store of the study cannot be used"),
        ("postgresql://me:secret@127.0.0.1:1/none", FailedError, "the store of the study cannot be used"),
    ],
)
def test_a_storage_that_cannot_be(open_store: Open, url: str, error: type[Exception], expected: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(error, match=expected) as raised:
        open_store(url=url)
    assert "secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


CLAIM = """
import sys
from pathlib import Path
from convscope.study.store import Store
from convscope.study import read_study
folder, url = Path(sys.argv[1]), sys.argv[2] or None
store = Store(folder, read_study((folder / "asked.yaml").read_text(), "asked"), url)
print("ready", flush=True)
for _ in sys.stdin:
    print(store.claim().trial, flush=True)
store.close()
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_processes_never_claim_the_same(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Thirty times, both claim at the same moment."""
    url = request.getfixturevalue("postgresql") if database == "postgresql" else ""
    n = 60
    spec = read_study(f"{{data: mnist, net: net1, seeds: {list(range(n))}}}", "asked")
    (tmp_path / "asked.yaml").write_text(dump_study(spec))
    store = Store(tmp_path, spec, url or None)
    store.fill()
    both = [
        subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path), url],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    assert [_line(one) for one in both] == ["ready", "ready"]
    claimed = []
    for _ in range(n // 2):
        for one in both:
            assert one.stdin
            one.stdin.write("go\n")
            one.stdin.flush()
        claimed += [int(_line(one)) for one in both]
    for one in both:
        one.communicate(timeout=60)
    assert sorted(claimed) == list(range(n))
    assert {trial.state for trial in store.trials()} == {TrialState.RUNNING}
    store.close()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE invoices (number INTEGER)")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(SettingError, match=r"study\.db: is a database of another program; move it away"):
        Store(tmp_path, read_study(GRID, "study.yaml"))
    assert path.read_bytes() == before
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SettingError, match=r"study\.db: is no database"):
        Store(tmp_path, read_study(GRID, "study.yaml"))
