"""Networks: the catalogue, the text form of plain ones, builders for foreign ones, and what their outputs mean."""

from convscope.nets.build import NetSpec, build_net, image_shape, natural_shape
from convscope.nets.catalogue import catalogue
from convscope.nets.plain import plain_net
from convscope.nets.task import Head, HeadSpec, Task, TaskSpec, make_task, task_over
from convscope.nets.text import Word, parse_layers

__all__ = [
    "Head",
    "HeadSpec",
    "NetSpec",
    "Task",
    "TaskSpec",
    "Word",
    "build_net",
    "catalogue",
    "image_shape",
    "make_task",
    "natural_shape",
    "parse_layers",
    "plain_net",
    "task_over",
]
