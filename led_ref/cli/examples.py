"""The examples that `led-ref COMMAND --help` ends with; tests/test_cli.py holds that each of them parses."""

from led_ref.cli import (
    asking_options,
    estimate_options,
    exercise_options,
    exploring_options,
    many_options,
    vectors_options,
)

EXAMPLES = {
    "led-ref": """
  led-ref summarize paper.txt                       a line from the small bundled model
  man gzip | led-ref summarize -                     the same, from a pipe
  led-ref summarize paper.txt --model allenai/led-large-16384-arxiv --num-beams 4 --max-new-tokens 256
  led-ref doctor                                    what works here
""",
    "summarize": """
  led-ref summarize paper.txt
  led-ref summarize a.txt b.md.gz --json
  man gzip | led-ref summarize - --quiet
  led-ref summarize book.txt --truncate --model DIR --num-beams 4 --max-new-tokens 256
"""
    + many_options.EXAMPLES.lstrip("\n"),
    "generate": """
  led-ref generate page.txt --set num_beams=4 --set num_return_sequences=4 --set no_repeat_ngram_size=3
  led-ref generate page.txt --global-attention none --json
""",
    "answer": asking_options.ANSWER_EXAMPLES,
    "classify": asking_options.CLASSIFY_EXAMPLES,
    "tokenize": """
  led-ref tokenize --text "Hello world"
  led-ref tokenize paper.txt --json
  led-ref tokenize --text "Hello world" --model allenai/led-base-16384
""",
    "inspect": """
  led-ref inspect                                   the bundled model
  led-ref inspect ./led-base-16384 --tensors
""",
    "convert": """
  led-ref convert ./led-base-16384 ./led-base-safetensors
  led-ref convert ./led-base-16384 ./led-base-half --dtype float16
  led-ref convert --from-bart facebook/bart-base ./my-led --max-positions 16384 --attention-window 1024
""",
    "vectors": vectors_options.EXAMPLES,
    "explore": exploring_options.EXAMPLES,
    "estimate": estimate_options.EXAMPLES,
    "exercise": exercise_options.EXAMPLES,
    "bench": """
  led-ref bench --quick
  led-ref bench --against transformers --plot lengths.svg
  led-ref bench --only encode-4k encode-16k --runs 5 --json
""",
    "trace": """
  led-ref trace paper.txt --out trace.safetensors
  led-ref trace paper.txt --out probs.safetensors --only "*.probs" --layer 0
  led-ref trace paper.txt --out beams.safetensors --generate --num-beams 4 --only "beam.*"
""",
    "steps": """
  led-ref steps
  led-ref steps --json
""",
    "diff": """
  led-ref diff ours.safetensors theirs.safetensors
  led-ref diff ours.safetensors theirs.safetensors --rtol 1e-3 --atol 1e-4 --plot errors.png
""",
    "doctor": """
  led-ref doctor
  led-ref doctor --checkpoint ./led-base-16384      do Ai2's weights give the numbers that they must?
  led-ref doctor --gpu --out gpu.json --page gpu.md    check a GPU, and measure it
""",
}
