"""convscope publish: a trained run on the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from convscope.cli.options import CardFolder, Json, RunDir, TrustCode, opened
from convscope.cli.show import print_json, print_line


def publish(
    run: RunDir,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")],
    out: CardFolder = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository, which nobody else sees.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder, list its files, and send nothing.")
    ] = False,
    message: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Message of the commit; a line with name and version if left out."),
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Publish a trained run on the Hugging Face Hub.

    Sends the folder of convscope card in one commit. A repository that is there is updated. The token is that of
    huggingface_hub: HF_TOKEN, or its login."""
    from convscope.share import publish_run

    published = publish_run(opened(run, trust_code), repo, out, private=private, dry_run=dry_run, message=message)
    if json:
        print_json(published.to_json())
        return
    print_line(f"card: {published.folder}")
    for name, size in published.files.items():
        print_line(f"  {name}  {size:,} bytes")
    if published.commit is None:
        print_line(f"not sent: without --dry-run it goes to {published.url}")
    elif published.changed:
        print_line(f"published: {published.url}, commit {published.commit}")
    else:
        print_line(f"nothing has changed: {published.url} has these files already, commit {published.commit}")
