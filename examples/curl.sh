#!/bin/sh
# The whole trip with curl alone: sh examples/curl.sh net.pt2 train.npz test.npz
# PLANISH_URL names the server; PLANISH_API_KEY is sent when it is set.
set -eu
url=${PLANISH_URL:-http://127.0.0.1:8000}
model=$1 data=$2 test_data=$3
ask() { curl -sS --fail-with-body ${PLANISH_API_KEY:+-H "Authorization: Bearer $PLANISH_API_KEY"} "$@"; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

spec='{"recipe": [{"op": "quantize", "mode": "static"}], "data": {"preprocess": {"scale": 0.00392156862745098}}}'
job=$(ask -F "spec=$spec" -F "model=@$model" -F "data=@$data" -F "test_data=@$test_data" "$url/jobs" | field '["id"]')
echo "$job"
until [ "$(ask -H 'Prefer: wait=30' "$url/jobs/$job" | tee /dev/stderr | field '["terminal"]')" = True ]; do :; done
ask "$url/jobs/$job/report" | field '["ratios"]'
ask -LOJ "$url/jobs/$job/model"
