"""How many images run at once where no gradients are kept."""

import pytest
import torch

from convscope.compute import evaluation_batch


@pytest.mark.parametrize(
    ("shape", "on_cpu", "on_gpu"),
    [((3, 32, 32), 512, 512), ((1, 28, 28), 512, 512), ((3, 64, 64), 170, 170), ((3, 224, 224), 13, 64),
     ((3, 2000, 2000), 1, 64)],
)  # fmt: skip
def test_few_large_images_on_a_cpu_and_many_small_ones_everywhere(
    shape: tuple[int, ...], on_cpu: int, on_gpu: int
) -> None:
    found = [evaluation_batch(shape, torch.device(name), least=64) for name in ("cpu", "cuda")]
    assert found == [on_cpu, on_gpu]
