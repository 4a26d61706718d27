#!/bin/sh
# Submit a sweep, wait for all, list the results: sh examples/sweep.sh net.pt2 train.npz
set -eu
model=$1 data=$2
for sparsity in 0.25 0.5 0.75; do
    planish submit "$model" --data "$data" --label sweep=sparsity --name "sparsity $sparsity" \
        --recipe "[{\"op\": \"prune\", \"sparsity\": $sparsity}, {\"op\": \"distill\"}, {\"op\": \"quantize\"}]"
done | while read -r job; do
    planish wait "$job" >/dev/null || echo "$job ended with exit code $?"
done
planish jobs --label sweep=sparsity
