"""NaN and infinity, in a network's weights and in what it makes of images."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from convscope.errors import FailedError, NetworkError


def broken_weights(net: nn.Module) -> str | None:
    """The names of the weights that are NaN or infinite, as "'bn1.weight' holds NaN or infinity"; None where none is.

    Infinite buffers are left out but for the statistics of norms: masks of an attention are minus infinity by intention.
    """
    names = [name for name, tensor in _weights(net) if not is_finite(tensor)]
    if not names:
        return None
    if len(names) == 1:
        return f"{names[0]!r} holds NaN or infinity"
    return f"{names[0]!r} and {len(names) - 1} more of its weights hold NaN or infinity"


def check_weights(net: nn.Module) -> None:
    """Refuses a network whose answers mean nothing.

    Raises:
        FailedError: some of its weights are NaN or infinite; the message names the first of them.
    """
    if (broken := broken_weights(net)) is not None:
        raise FailedError(f"the network is broken: {broken}; load other weights, or train it again")


def check_has_values(net: nn.Module) -> None:
    """Refuses a network whose weights are but shapes.

    Raises:
        NetworkError: a weight is on the meta device.
    """
    if (name := next((name for name, tensor in net.named_parameters() if tensor.is_meta), None)) is not None:
        raise NetworkError(f"weight {name!r} is on the meta device and has no values; load the network's weights first")


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    if not (values.is_floating_point() or values.is_complex()) or values.is_meta:
        return True
    # A sum is finite only if every value is, and takes a fifth of the time; a large one may be infinite all the same.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def check_finite(values: Tensor, message: str) -> None:
    """Raises FailedError with this message where a value is NaN or infinite."""
    if not is_finite(values):
        raise FailedError(message)


def _weights(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from net.named_parameters()
    for name, buffer in net.named_buffers():
        of_norm = name.rpartition(".")[2] in ("running_mean", "running_var")
        yield name, buffer if of_norm else buffer.nan_to_num(posinf=0.0, neginf=0.0, nan=float("nan"))
