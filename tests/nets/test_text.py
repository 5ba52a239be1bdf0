import pytest

from convscope.errors import SettingError
from convscope.nets import parse_layers


def test_words_with_all_letters() -> None:
    conv, pool, drop, dense = parse_layers("c64k5s2p0d2g4b Mk3s2p1u D0.3 f10bl")
    assert (conv.letter, conv.number, conv.settings) == ("c", 64, {"k": 5, "s": 2, "p": 0, "d": 2, "g": 4})
    assert conv.flags == {"b"}
    assert (pool.settings, pool.flags) == ({"k": 3, "s": 2, "p": 1}, {"u"})
    assert drop.number == 0.3
    assert dense.flags == {"b", "l"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("x3", "'x3' is no layer"),
        ("c", "needs a whole number"),
        ("c0", "needs a whole number"),
        ("c3.5", "needs a whole number"),
        ("D", "needs a share"),
        ("D1", "needs a share"),
        ("D.", "needs a share"),
        ("M2", "takes no number; a kernel is written Mk2"),
        ("c8u", "letter 'u' does not go with 'c'"),
        ("f8k3", "letter 'k' does not go with 'f'"),
        ("f8 c8", "after a dense layer"),
        ("c8k", "is no layer"),
        ("c8 W", "'W' is not the first word"),
        ("W3", "takes no number; a kernel is written Wk3"),
        ("Ws2", "letter 's' does not go with 'W'"),
        ("f c8", "'f' has no number of units"),
        ("c8 fob", "'fob' has no number of units"),
        ("E2", "takes no number"),
    ],
)
def test_wrong_words_are_named(text: str, expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        parse_layers(text)
