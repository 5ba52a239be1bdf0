import pytest
from rich.console import Console

from convscope.study.live import Best, Finished, Going, Lines, Standing, duration, screen


def _shown(standing: Standing, width: int = 100) -> str:
    console = Console(record=True, width=width, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(screen("widths", "val_accuracy", standing))
    console.file.close()
    return console.export_text()


def test_the_screen_says_where_a_study_stands() -> None:
    going = [
        Going("0007-s0", {"net.width": 12, "recipe.rate": 0.01}, 3, 10, 0.91234),
        Going("0008-s0", {}, 0, 10, None),
    ]
    standing = Standing(24, 6, 1, 2, going, 13, Best({"net.width": 6}, 0.98765, 3), 720)
    shown = _shown(standing)
    assert "6 done · 2 going · 13 waiting · 1 pruned · 2 failed" in shown
    assert "about 12 min left" in shown
    assert "best so far: val_accuracy 0.9877 (mean of 3 seeds)  net.width 6" in shown
    assert "0007-s0   3/10        0.9123  net.width 12, recipe.rate 0.01" in shown
    assert " 9/24" in shown
    assert max(map(len, _shown(standing, 60).splitlines())) <= 60


def test_the_last_screen_leaves_out_what_is_over() -> None:
    shown = _shown(Standing(4, 4, 0, 0, [], 0, Best({"net.width": 6}, 0.5, 1), 0.0))
    assert "4 done" in shown
    assert "left" not in shown
    assert "epoch" not in shown


def test_many_runs_at_once_do_not_fill_the_screen() -> None:
    going = [Going(f"{n:04d}-s0", {}, 0, 10, None) for n in range(40)]
    assert len(_shown(Standing(None, 0, 0, 0, going)).splitlines()) < 24


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin("widths", "val_loss")
    lines.show(Standing(4, 1, 0, 0))
    lines.finished(Finished(1, "0001-s0", {"net.width": 6}, "done", "0.1234", 3.21))
    lines.finished(Finished(2, "0002-s0", {}, "diverged", "the loss is nan", None))
    assert capsys.readouterr().err.splitlines() == [
        "1/4  0001-s0  net.width 6  val_loss 0.1234  3.2 s",
        "2/4  0002-s0  the settings as they are  diverged: the loss is nan",
    ]


def test_durations_in_words() -> None:
    assert [duration(s) for s in (0.4, 9.97, 50, 720, 12_000, 187_200)] == [
        "0.4 s",
        "10 s",
        "50 s",
        "12 min",
        "3 h 20 min",
        "2 d 4 h",
    ]
