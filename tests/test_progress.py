"""Progress: everything is passed on and counted, on standard output, and ever more rarely."""

from flowlib import progress
from flowlib.progress import Progress


def test_items_pass_and_are_counted(capsys):
    assert list(Progress(range(7), "counting", unit="clip")) == list(range(7))
    shown = capsys.readouterr()
    assert "counting: 100%" in shown.out and "7/7" in shown.out and not shown.err


def test_disabled_shows_nothing(capsys):
    assert list(Progress(range(3), disable=True)) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_twelve_hours_leave_hundreds_of_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress(title="long", total=12 * 3600)
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = bar.began = 0.0
    for _ in range(12 * 3600):
        now[0] += 1.0
        bar.update()
    bar.close()
    assert 100 < capsys.readouterr().out.count("\r") < 1000
