#!/bin/sh
# Reprocesses the images of every failed product, a hundred products at a time, then lists those that still fail.
# usage: batch_reprocess.sh [flags of pm, such as --database-url postgres://…]
set -eu
pm product list --status failed --all -o ndjson "$@" | jq -r .id | xargs -n 100 | while read -r ids; do
    # shellcheck disable=SC2046,SC2086 # ids are numbers: each must be a separate argument
    pm reprocess --wait --yes $(printf -- '--product %s ' $ids) "$@" </dev/null || echo "some failed again" >&2
done
pm product list --status failed --all -o ndjson "$@" |
    jq -r '.id as $id | .images[] | select(.error) | "\($id)\t\(.source_url)\t\(.error.code)"'
