"""Convolution by hand: sizes, counts and receptive fields with the steps that lead there, and worked examples on numbers."""

from convscope.arithmetic.axis import Axis, Padding
from convscope.arithmetic.chain import Chain, chain, conv, figures, pool, times
from convscope.arithmetic.examples import EXAMPLES, padding, pair, worked_example
from convscope.arithmetic.numbers import read_numbers
from convscope.arithmetic.steps import Step
from convscope.arithmetic.worked import Window, Worked, worked_conv, worked_pool

__all__ = [
    "EXAMPLES",
    "Axis",
    "Chain",
    "Padding",
    "Step",
    "Window",
    "Worked",
    "chain",
    "conv",
    "figures",
    "padding",
    "pair",
    "pool",
    "read_numbers",
    "times",
    "worked_conv",
    "worked_example",
    "worked_pool",
]
