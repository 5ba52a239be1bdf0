"""A comparison of runs on the terminal: verdicts first, then settings, figures, and where answers differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope.cli.show import number, print_line, print_table, share

if TYPE_CHECKING:
    from convscope.study import Compared, Pair

_MOST_SENTENCES = 6
_MOST_ACROSS = 4  # runs that have room beside each other
_MOST_CELLS = 8
_NUMBERS = {"loss": ".4f", "overfit_percent": ".2f"}  # all other figures are shares


def print_compared(found: Compared) -> None:
    """All that a comparison says, except its pictures."""
    _print_pairs("Over seeds, which tells recipes apart", found.over_seeds)
    _print_pairs("On the same test images, which tells these runs apart", found.pairs)
    _print_settings(found)
    _print_figures(found)
    _print_groups(found)
    only = found.only_right()
    if only:
        told = "; ".join(f"{len(rows):,} by {name}" for name, rows in only.items())
        print_line(f"Test images that only one of them gets right: {told}\n")
    _print_moved(found)
    for note in found.notes():
        print_line(note)


def _print_pairs(title: str, pairs: tuple[Pair, ...]) -> None:
    from convscope.study import written_p

    if len(pairs) > _MOST_SENTENCES:
        rows = [
            (pair.a, pair.b, _points(pair), written_p(pair.p), "yes" if pair.told_apart else "no") for pair in pairs
        ]
        columns = ("A", "B", "A less B, points", "p (Holm)", "told apart")
        print_line(f"{title}: {pairs[0].basis}")
        print_table("", columns, rows, left=2)
        print_line("")
    elif pairs:
        print_line("\n".join([title, *(f"  {pair.verdict}; {pair.basis}" for pair in pairs), ""]))


def _points(pair: Pair) -> str:
    return number(
        {key: None if v is None else 100 * v for key, v in pair.compared.difference.to_json().items()}, "+.2f"
    )


def _print_settings(found: Compared) -> None:
    from convscope.study import setting_in_words

    values = [[setting_in_words(run.settings.get(key, "–")) for key in found.settings] for run in found.runs]
    if not found.settings:
        print_line("All settings are the same.\n")
        return
    if len(found.runs) <= _MOST_ACROSS:
        print_table("", ("setting", *found.names), zip(found.settings, *values, strict=True))
    else:
        rows = [(name, *row) for name, row in zip(found.names, values, strict=True)]
        print_table("", ("settings of", *found.settings), rows)
    print_line("")


def _print_figures(found: Compared) -> None:
    """A line for each figure of each run, so that those to be compared stand below each other."""
    rows = []
    for _, same in found.figures().groupby("metric", sort=False):
        for place, row in enumerate(same.to_dict("records")):
            form = _NUMBERS.get(row["metric"])
            figure = {key: row[key] for key in ("value", "low", "high")}
            rows.append(("" if place else row["name"], row["run"], number(figure, form) if form else share(figure)))
    print_table("", ("figure", "run", "95 % interval"), rows, left=2)
    print_line("")


def _print_groups(found: Compared) -> None:
    groups = [group for group in found.groups if len(group.values) > 1]
    if not groups:
        return
    rows = [
        (one.label, str(one.accuracy.n), *(share(each.mean.to_json()) for each in (one.val_accuracy, one.accuracy)))
        for one in groups
    ]
    print_table("", ("mean over seeds (95 %, cut at 0 and 100)", "seeds", "validation accuracy", "test accuracy"), rows)
    print_line("")


def _print_moved(found: Compared) -> None:
    """Where the first two differ most, answer by answer."""
    moved = found.moved() if found.same_images else None
    if moved is None or moved.empty:
        return
    a, b = found.names[:2]
    rows = [
        (row["true"], row["predicted"], f"{row['images']:+,}") for row in moved.head(_MOST_CELLS).to_dict("records")
    ]
    print_line(f"Confusion matrix, images of {a} less those of {b}")
    print_table("", ("true", "predicted", "images"), rows, left=2)
    if len(moved) > _MOST_CELLS:
        print_line(f"… {len(moved):,} cells differ in all; --json prints them")
    print_line("")
