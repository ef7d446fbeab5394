#!/usr/bin/env bash
# The three models, stage after stage, by `led-ref train` alone. Each stage goes on where it was cut off; what is done is left.
#
#     docs/recipes/train.sh WORK summarizer|classifier|answerer|all
#
# WORK has the data of fetch.sh and make_data.sh. PYTHON names an interpreter with led_ref, THREADS how many to use (2).
# Any program that is killed here, at whatever moment, goes on when this is started again with the same words.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-python3}
THREADS=${THREADS:-2}

# train NAME START DATA HELDOUT OPTION ...: one stage, into WORK/models/NAME
train() {
  local name=$1 start=$2 data=$3 heldout=$4
  shift 4
  local out=$WORK/models/$name
  if [ -e "$out.done" ]; then return; fi
  echo "$(date -u +%FT%TZ) $name begins or goes on"
  "$PYTHON" -m led_ref.cli.main train "$data" --model "$start" --out "$out" --validate "$heldout" --resume --quiet --json \
    --threads "$THREADS" --truncate --save-every 50 --adam-beta2 0.98 --weight-decay 0.01 "$@" >"$out.json"
  touch "$out.done"
  echo "$(date -u +%FT%TZ) $name is done"
}

# made FOLDER COMMAND ...: run a command that makes a folder, if it is not whole yet (config.json is written last)
made() {
  local folder=$1
  shift
  if [ ! -e "$folder/config.json" ]; then "$PYTHON" "$HERE/start.py" "$@"; fi
}

summary_stage() {
  local stage=$1 start=$2
  shift 2
  train "summarizer-$stage" "$start" "$WORK/data/stages/$stage.jsonl.gz" "$WORK/data/stages/$stage-heldout.jsonl.gz" \
    --truncate-targets --label-smoothing 0.1 --validate-every 400 "$@"
}

summarizer_short() {
  local models=$WORK/models
  made "$models/summarizer-start" new "$models/summarizer-start" --vocabulary "$WORK/data/vocabulary" --width 192 --layers 3
  summary_stage first "$models/summarizer-start" --max-source-length 512 --epochs 3 --learning-rate 1e-3 \
    --schedule inverse_sqrt --warmup 800 --batch-size 96 --batch-tokens 4096 --gradient-accumulation 2 --documents-at-once 8
  summary_stage short "$models/summarizer-first" --max-source-length 1024 --epochs 3 --learning-rate 5e-4 \
    --warmup 200 --batch-size 64 --batch-tokens 8192 --gradient-accumulation 2 --documents-at-once 4
}

# Positions are tiled, as the paper does with BART's: 1,024 become 8,192.
summarizer_long() {
  local models=$WORK/models
  made "$models/summarizer-tiled" tile "$models/summarizer-short" "$models/summarizer-tiled" --positions 8192
  summary_stage medium "$models/summarizer-tiled" --max-source-length 4096 --epochs 1 --learning-rate 3e-4 \
    --warmup 100 --batch-size 32 --batch-tokens 16384 --gradient-accumulation 1 --documents-at-once 1
  summary_stage long "$models/summarizer-medium" --max-source-length 8192 --epochs 0.5 --learning-rate 1e-4 \
    --warmup 20 --batch-size 16 --batch-tokens 16384 --gradient-accumulation 1 --documents-at-once 1
}

main() {
  WORK=$1
  mkdir -p "$WORK/models"
  exec 9>"$WORK/lock" # one training at a time
  flock --nonblock 9 || { echo "a training runs already"; exit 0; }
  case $2 in
    summarizer) summarizer_short && summarizer_long ;;
    all) summarizer_short && summarizer_long ;;
    *) echo "summarizer or all, not $2" >&2; exit 2 ;;
  esac
}

main "$@"
