"""`led-ref gather`: the results of a folder, checked and put together, in the order of the documents."""

import argparse
import json
from pathlib import Path

from led_ref.cli.shared_options import add_shared
from led_ref.errors import InputError
from led_ref.tools.terminal import print_json, say

SUMMARY = "put the results of a folder, or of all shards in it, together: one JSON object a line"
EXAMPLES = """
  led-ref summarize papers --out summaries --shard 1/4    four processes, on one machine or on four
  led-ref gather summaries --out summaries.jsonl          when all have ended
  led-ref gather summaries --partial                      what is there by now
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref gather`."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="the folder that --out named")
    add("--out", metavar="FILE", help="write into FILE, whole or not at all; .parquet: rows in place of lines")
    add("--partial", action="store_true", help="leave out the results that are missing, and say how many these are")
    add_shared(parser, "--quiet")


def run(options: argparse.Namespace) -> int:
    """Write or print the results. 0; what is missing is an error, or left out as asked."""
    from led_ref.files.staging import new_file, to_write
    from led_ref.pipelines.corpus import PARQUET
    from led_ref.pipelines.gather import gather, write_parquet

    if options.out is not None and to_write("--out", options.out).exists():
        raise InputError(f"{options.out} exists already. Move it away, or name another file.")
    found = gather(Path(options.folder), partial=options.partial)
    if options.out is None:
        for result in found.results():
            print_json(result)
    else:
        with new_file(Path(options.out)) as unfinished:
            if options.out.endswith(PARQUET):
                write_parquet(found.results(), unfinished)
            else:
                with unfinished.open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(json.dumps(result, ensure_ascii=False) + "\n" for result in found.results())
    if not options.quiet:
        there = len(found.documents) - len(found.missing)
        say(f"{there} of {len(found.documents)} results{f' in {options.out}' if options.out else ''}")
    return 0
