"""Networks: the catalogue, the text form of plain ones, builders for foreign ones, and what their outputs mean."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.nets.build import (
        NetSpec,
        build_natural,
        build_net,
        check_name,
        check_options,
        code_in,
        natural_input,
        takes_colour_alone,
        trained_input,
    )
    from convscope.nets.catalogue import catalogue
    from convscope.nets.drawn import random_weights_in_words
    from convscope.nets.heads import HEAD_NAME, outputs_of, put_head
    from convscope.nets.listing import ListedNet, ListedZoo, listed_catalogue, listed_zoos, searched
    from convscope.nets.natural import NaturalInput
    from convscope.nets.plain import plain_net
    from convscope.nets.task import Head, HeadSpec, Task, TaskSpec, make_task, no_logits, task_over
    from convscope.nets.text import Word, parse_layers
    from convscope.nets.whitening import Whitening
else:
    load_when_used(__name__)

__all__ = [
    "HEAD_NAME",
    "Head",
    "HeadSpec",
    "ListedNet",
    "ListedZoo",
    "NaturalInput",
    "NetSpec",
    "Task",
    "TaskSpec",
    "Whitening",
    "Word",
    "build_natural",
    "build_net",
    "catalogue",
    "check_name",
    "check_options",
    "code_in",
    "listed_catalogue",
    "listed_zoos",
    "make_task",
    "natural_input",
    "no_logits",
    "outputs_of",
    "parse_layers",
    "plain_net",
    "put_head",
    "random_weights_in_words",
    "searched",
    "takes_colour_alone",
    "task_over",
    "trained_input",
]
