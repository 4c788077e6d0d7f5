#!/usr/bin/env bash
# Stands in for streamproof where a red shard is to be seen: STREAMPROOF=try-red.sh, REAL=/path/to/streamproof,
# RED_SEED=N. A shard whose first seed is N runs, instead of its seeds, a plan that truly fails: a canary's (records are
# acknowledged from the page cache, then the power goes) under another scenario's name, since canaries are no failures.
# So exit code, capsules and annotations are the program's own. Every other call goes through as it is.
set -euo pipefail
real=${REAL:?names the real program}
red=${RED_SEED:?names the first seed of the shard that is to be red}

first='' options=() before=''
for argument in "$@"; do
    [ "$before" != --seed ] || first=$argument
    case $before in --junit | --jobs) options+=("$before" "$argument") ;; esac
    before=$argument
done
if [ "${1:-}" != run ] || [ "$first" != "$red" ]; then
    exec "$real" "$@"
fi
# Any plan of the canary will do, so the search is cut short; it is the way to have a plan as a file.
"$real" shrink canary_page_cache/0 --for 1s --jobs 1 --output canary.json >/dev/null 2>&1
mkdir -p tests/regressions
sed 's/"scenario": "canary_page_cache"/"scenario": "power_loss"/' canary.json >tests/regressions/planted.json
# Searching leaves no run. With no scenario and no seeds, the kept plans alone run.
exec "$real" run --seeds 0 --format json "${options[@]}"
