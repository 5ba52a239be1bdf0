"""Convolution by hand: sizes, counts and receptive fields with the steps that lead there, and worked examples on numbers."""

from convscope.arithmetic.axis import Axis, Padding
from convscope.arithmetic.chain import Chain, chain, conv, figures, pool, times
from convscope.arithmetic.examples import EXAMPLES, padding, pair, worked_example
from convscope.arithmetic.numbers import read_numbers
from convscope.arithmetic.steps import Step
from convscope.arithmetic.told import Order, add_up, in_words, number, read_shape, window_in_words
from convscope.arithmetic.worked import Window, Worked, worked_conv, worked_pool

__all__ = [
    "EXAMPLES",
    "Axis",
    "Chain",
    "Order",
    "Padding",
    "Step",
    "Window",
    "Worked",
    "add_up",
    "chain",
    "conv",
    "figures",
    "in_words",
    "number",
    "padding",
    "pair",
    "pool",
    "read_numbers",
    "read_shape",
    "times",
    "window_in_words",
    "worked_conv",
    "worked_example",
    "worked_pool",
]
