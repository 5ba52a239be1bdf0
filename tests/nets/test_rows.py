from typing import Any

import pytest
import torch
from torch import Tensor

from convscope.errors import SettingError
from convscope.nets import build_net


def last_state(cell: str, layer: Any, steps: Tensor) -> Tensor:
    """A recurrent layer's state after the last of the steps (N, T, inputs), gate by gate; gates as PyTorch has them."""
    state = steps.new_zeros(len(steps), layer.hidden_size)
    memory = torch.zeros_like(state)
    for step in steps.unbind(1):
        of_step = (step @ layer.weight_ih_l0.T + layer.bias_ih_l0).split(layer.hidden_size, 1)
        of_state = (state @ layer.weight_hh_l0.T + layer.bias_hh_l0).split(layer.hidden_size, 1)
        both = [a + b for a, b in zip(of_step, of_state, strict=True)]
        if cell == "rnn":
            state = both[0].tanh()
        elif cell == "lstm":
            enter, forget, new, leave = both[0].sigmoid(), both[1].sigmoid(), both[2].tanh(), both[3].sigmoid()
            memory = forget * memory + enter * new
            state = leave * memory.tanh()
        else:
            reset, keep = both[0].sigmoid(), both[1].sigmoid()
            new = (of_step[2] + reset * of_state[2]).tanh()
            state = (1 - keep) * new + keep * state
    return state


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_an_image_is_read_row_by_row(cell: str) -> None:
    torch.manual_seed(0)
    net = build_net("rows", cell=cell, hidden=5, channels=2, image_size=4, classes=3).double().eval()
    assert [name for name, _ in net.named_children()] == ["rows", f"{cell}1", "last", "fc1"]
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    rows = [torch.cat([images[:, 0, row], images[:, 1, row]], 1) for row in range(4)]
    state = last_state(cell, net[1], torch.stack(rows, 1))
    torch.testing.assert_close(net(images), state @ net.fc1.weight.T + net.fc1.bias)


def test_there_are_three_cells() -> None:
    with pytest.raises(SettingError, match=r"net\.cell: 'gruu' for rows: Input should be 'rnn', 'lstm' or 'gru'"):
        build_net("rows", cell="gruu")
