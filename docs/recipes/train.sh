#!/usr/bin/env bash
# The three models, stage after stage, by `led-ref train` alone. Each stage goes on where it was cut off; what is done is left.
#
#     docs/recipes/train.sh WORK data|summarizer|classifier|answerer|all
#
# PYTHON names an interpreter with led_ref, THREADS how many to use (2), HELDOUT pages that must not be trained on
# (man_pages.py). STEPS=5 takes so many steps in each stage, to see that all of it runs.
# Classifier and answerer begin as the summarizer that was trained here or, if there is none, as the one that led_ref ships.
# If it is killed, at whatever moment, it goes on when it is started again with the same words.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-python3}
THREADS=${THREADS:-2}

# ---- data ----------------------------------------------------------------------------------------------------------------

# step FILE PROGRAM ARGUMENT ...: run a program of this folder, unless what it writes last is there
step() {
  local file=$1 program=$2
  shift 2
  if [ ! -e "$file" ]; then "$PYTHON" "$HERE/$program" "$@"; fi
}

data() {
  local data=$WORK/data
  mkdir -p "$data"
  if [ -e "$data/test/labels.jsonl.gz" ]; then return; fi
  "$PYTHON" "$HERE/fetch.py" "$data"
  step "$data/rfcs.jsonl.gz" rfcs.py "$data"
  step "$data/man_pages.jsonl.gz" man_pages.py "$data" ${HELDOUT:+"$HELDOUT"}
  step "$data/descriptions.jsonl.gz" descriptions.py "$data"
  step "$data/vocabulary/tokenizer_config.json" vocabulary.py "$data"
  step "$data/test/descriptions.jsonl.gz" stages.py "$data"
  step "$data/test/labels.jsonl.gz" questions.py "$data"
}

# ---- training ------------------------------------------------------------------------------------------------------------

# train NAME START DATA EPOCHS OPTION ...: one stage, into WORK/models/NAME
train() {
  local out=$WORK/models/$1 start=$2 stages=$WORK/data/stages/$3 length=(--epochs "$4")
  if [ -e "$out.done" ]; then return; fi
  if [ -n "${STEPS:-}" ]; then length=(--steps "$STEPS"); fi
  echo "$(date -u +%FT%TZ) $1 begins or goes on"
  shift 4
  "$PYTHON" -m led_ref.cli.main train "$stages.jsonl.gz" --validate "$stages-heldout.jsonl.gz" --model "$start" --out "$out" \
    "${length[@]}" --resume --quiet --json --threads "$THREADS" --processes "$THREADS" --truncate --save-every 100 --validate-every 500 \
    --keep-activations \
    --adam-beta2 0.98 --weight-decay 0.01 "$@" >"$out.json"
  touch "$out.done"
  echo "$(date -u +%FT%TZ) ${out##*/} is done"
}

# made FOLDER COMMAND ...: run a command of start.py that makes a folder, unless it is whole (config.json is written last)
made() {
  local folder=$1
  shift
  if [ ! -e "$folder/config.json" ]; then "$PYTHON" "$HERE/start.py" "$@"; fi
}

SUMMARIES=(--truncate-targets)

summarizer() {
  local start=$WORK/models/summarizer-start tiled=$WORK/models/summarizer-tiled warmup=${STEPS:+0}
  made "$start" new "$start" --vocabulary "$WORK/data/vocabulary"
  # Most of it is text infilling, with which no document is read often enough to be learned by heart: no dropout.
  train summarizer-first "$start" first 0.4 "${SUMMARIES[@]}" --max-source-length 512 --dropout 0 --learning-rate 2e-3 \
    --schedule inverse_sqrt --warmup "${warmup:-300}" --batch-size 48 --batch-tokens 4096 --documents-at-once 12
  train summarizer-short "$WORK/models/summarizer-first" short 0.45 "${SUMMARIES[@]}" --max-source-length 1024 \
    --label-smoothing 0.1 --learning-rate 5e-4 --warmup "${warmup:-200}" --batch-size 48 --batch-tokens 8192 --documents-at-once 4
  # The same documents again, all of them: held-out loss still fell.
  train summarizer-again "$WORK/models/summarizer-short" short 1 "${SUMMARIES[@]}" --max-source-length 1024 \
    --label-smoothing 0.1 --learning-rate 1e-3 --warmup "${warmup:-200}" --batch-size 48 --batch-tokens 8192 --documents-at-once 4
  # Positions are tiled, as the paper does with BART's: 1,024 become 8,192.
  made "$tiled" tile "$WORK/models/summarizer-again" "$tiled" --positions 8192
  train summarizer-medium "$tiled" medium 0.25 "${SUMMARIES[@]}" --max-source-length 4096 --label-smoothing 0.1 \
    --learning-rate 3e-4 --warmup "${warmup:-50}" --batch-size 32 --batch-tokens 16384 --documents-at-once 2
  train summarizer "$WORK/models/summarizer-medium" long 0.1 "${SUMMARIES[@]}" --max-source-length 8192 --label-smoothing 0.1 \
    --learning-rate 1e-4 --warmup "${warmup:-20}" --batch-size 16 --batch-tokens 16384 --documents-at-once 1
}

# What classifier and answerer begin as: it has read the same kinds of documents.
start_of_others() {
  if [ -e "$WORK/models/summarizer.done" ]; then echo "$WORK/models/summarizer"; else echo "$HERE/../../led_ref/bundled"; fi
}

# For labels and answers the decoder reads the document, too, and gets positions for it.
classifier() {
  local start=$WORK/models/classifier-start warmup=${STEPS:+0}
  local task=(--task classification --max-source-length 512 --batch-size 64 --batch-tokens 8192 --documents-at-once 16)
  made "$start" tile "$(start_of_others)" "$start" --positions 512 --targets 512
  train classifier-first "$start" labels 0.8 "${task[@]}" --learning-rate 5e-4 --warmup "${warmup:-50}"
  # The same descriptions in another order, since held-out loss still fell.
  train classifier "$WORK/models/classifier-first" labels 1.4 "${task[@]}" --learning-rate 5e-4 --warmup "${warmup:-50}" --seed 2
}

answerer() {
  local start=$WORK/models/answerer-start warmup=${STEPS:+0}
  local task=(--task question-answering --max-source-length 1024 --batch-size 96 --batch-tokens 8192 --documents-at-once 8)
  made "$start" tile "$(start_of_others)" "$start" --positions 1024 --targets 1024
  # Of long contexts nothing is learned at first: two labels of a document say little. So contexts of some sentences come first.
  train answerer-tiny "$start" questions-tiny 1 "${task[@]}" --learning-rate 1e-3 --warmup "${warmup:-150}"
  train answerer-middle "$WORK/models/answerer-tiny" questions-middle 0.35 "${task[@]}" \
    --learning-rate 1e-3 --warmup "${warmup:-50}"
  # The same contexts in another order, three times, since held-out loss still fell; slower, since at 1e-3 training loss rose.
  train answerer-again "$WORK/models/answerer-middle" questions-middle 0.2 "${task[@]}" \
    --learning-rate 8e-4 --warmup "${warmup:-50}" --seed 2
  train answerer-more "$WORK/models/answerer-again" questions-middle 0.65 "${task[@]}" \
    --learning-rate 5e-4 --warmup "${warmup:-50}" --seed 3
  train answerer-most "$WORK/models/answerer-more" questions-middle 0.75 "${task[@]}" \
    --learning-rate 5e-4 --warmup "${warmup:-50}" --seed 4
  # Pieces of documents, as a long one is searched: many lack the answer. That teaches to say so, and too much of it; the mean of
  # the weights before and after is better than either.
  train answerer-pieces "$WORK/models/answerer-most" questions-pieces 0.42 "${task[@]}" \
    --learning-rate 5e-4 --warmup "${warmup:-50}" --seed 5
  local after=$WORK/models/answerer-pieces # the last weights, in a folder of their own if others were better held out
  if [ -e "$after/last/config.json" ]; then after=$after/last; fi
  made "$WORK/models/answerer" mean "$WORK/models/answerer-most" "$after" "$WORK/models/answerer"
}

main() {
  WORK=$1
  mkdir -p "$WORK/models"
  exec 9>"$WORK/lock" # one at a time
  flock --nonblock 9 || { echo "it runs already in $WORK"; exit 0; }
  data
  case $2 in
    data) ;;
    summarizer) summarizer ;;
    classifier) classifier ;;
    answerer) answerer ;;
    all) summarizer; classifier; answerer ;; # no &&: bash would not stop at what fails in them
    *) echo "data, summarizer, classifier, answerer or all, not $2" >&2; exit 2 ;;
  esac
}

main "$@"
