"""Networks: the catalogue, the text form of plain ones, builders for foreign ones, and what their outputs mean."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.nets.build import (
        NetSpec as NetSpec,
        build_natural as build_natural,
        build_net as build_net,
        check_name as check_name,
        check_options as check_options,
        code_in as code_in,
        natural_input as natural_input,
        random_weights_in_words as random_weights_in_words,
        takes_colour_alone as takes_colour_alone,
        trained_input as trained_input,
    )
    from convscope.nets.catalogue import catalogue as catalogue
    from convscope.nets.heads import HEAD_NAME as HEAD_NAME, outputs_of as outputs_of, put_head as put_head
    from convscope.nets.listing import (
        ListedNet as ListedNet,
        ListedZoo as ListedZoo,
        listed_catalogue as listed_catalogue,
        listed_zoos as listed_zoos,
        searched as searched,
    )
    from convscope.nets.natural import NaturalInput as NaturalInput
    from convscope.nets.plain import Whitening as Whitening, plain_net as plain_net
    from convscope.nets.task import (
        Head as Head,
        HeadSpec as HeadSpec,
        Task as Task,
        TaskSpec as TaskSpec,
        make_task as make_task,
        no_logits as no_logits,
        task_over as task_over,
    )
    from convscope.nets.text import Word as Word, parse_layers as parse_layers
else:
    load_when_used(__name__)
