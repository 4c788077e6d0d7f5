#!/usr/bin/env bash
# Stands in for streamproof where a red shard is to be seen: try-actions.py --program try-red.sh, with REAL (the program),
# RED_SHARD (which shard, from 1) and RED_PLAN (a plan that fails, such as book/src/tutorial/too-early.json). That shard
# runs its part of the plan's schedules in the place of its part of the seeds. So exit code, capsules and annotations are
# the program's own. Every other call goes through as it is.
set -euo pipefail
real=${REAL:?names the real program}
shard=${RED_SHARD:?names the shard that is to be red}
plan=${RED_PLAN:?names a plan that fails}

if [[ "${1:-} ${2:-} $*" == "run swarm "*" --shard $shard/"* ]]; then
    shift 2
    set -- run "$plan" "$@"
fi
exec "$real" "$@"
