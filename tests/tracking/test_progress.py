"""Progress: rare plain lines in a file, a bar on a terminal, names printed as they are."""

import io

import pytest

from prunebench.tracking.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_per_epoch_and_rare_ones_between(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(stream, every_seconds=60).task("finetune", 200) as task:
        for epoch in (1, 2):
            for _ in range(100):
                clock[0] += 1
                task.advance()
            task.epoch({"epoch": f"{epoch}/2", "lr": 0.1, "loss": 1.23456, "val": "48.00 %"})
    assert stream.getvalue().splitlines() == [
        "finetune  step 60/200 (30 %)  time left 2 min",
        "finetune  epoch 1/2  lr 0.1  loss 1.235  val 48.00 %  time left 2 min",
        "finetune  step 160/200 (80 %)  time left 40 s",
        "finetune  epoch 2/2  lr 0.1  loss 1.235  val 48.00 %",
    ]


def test_the_time_left_after_a_resumption_is_at_this_process_pace(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(stream, every_seconds=10).task("baseline", 100, done=90) as task:
        clock[0] += 20
        task.advance(2)
    assert stream.getvalue() == "baseline  step 92/100 (92 %)  time left 80 s\n"


def test_names_are_not_markup_and_lines_are_not_wrapped() -> None:
    for stream in (io.StringIO(), Terminal()):
        progress = Progress(stream)
        progress.note("layer[0] :ship: [bold]x[/bold] [/]" + "y" * 300)
        with progress.task("conv[1] [red]", 2) as task:
            task.advance(2)
            task.epoch({"epoch": "1/1 [/]"})
        text = stream.getvalue()
        assert "layer[0] :ship: [bold]x[/bold] [/]" + "y" * 300 in text
        assert "conv[1] [red]  epoch 1/1 [/]" in text


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    stream = Terminal()
    with Progress(stream).task("baseline", 4) as task:
        task.advance(3)
        task.epoch({"epoch": "1/2"})
    text = stream.getvalue()
    assert "4" in text
    assert "time left" in text
    assert "\x1b[" in text
    assert "baseline  epoch 1/2" in text


def test_quiet_says_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        progress = Progress(stream, quiet=True)
        progress.note("x")
        with progress.task("a", 1) as task:
            task.advance()
            task.epoch({"epoch": 1})
        assert stream.getvalue() == ""


def test_a_stage_of_no_steps() -> None:
    stream = io.StringIO()
    with Progress(stream, every_seconds=0).task("none", 0) as task:
        task.advance(0)
    assert stream.getvalue() == "none  step 0/0 (0 %)\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (11100, "3 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
