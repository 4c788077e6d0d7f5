#!/usr/bin/env bash
# A sweep as a Slurm array, and one job after it that merges. Run it where sbatch is, from a checkout all nodes see.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: slurm-array.sh SHARDS SEEDS OUTDIR [SBATCH-OPTION…]

OUTDIR is on a file system that all nodes share. Options go to the array and to the merge, after these defaults:
--cpus-per-task=4 --mem=4G --time=06:00:00, and --cpus-per-task=1 --time=01:00:00 for the merge, which are kept.
An option with a value is one word: --partition=batch. Variables: STREAMPROOF and FIRST_SEED, as shard.sh has them.
It prints the numbers of the two jobs. The merge's exit code is the sweep's.
TEXT
}

refuse() {
    echo "slurm-array.sh: $1" >&2
    exit 2
}

case ${1:-} in -h | --help) usage; exit ;; esac
[ $# -ge 3 ] || { usage >&2; refuse "3 arguments are needed, there are $#"; }
[[ $1 =~ ^[1-9][0-9]{0,6}$ ]] || refuse "SHARDS must be a number of at least 1, not \`$1\`"
[[ $2 =~ ^[1-9][0-9]{0,12}$ ]] || refuse "SEEDS must be a number of at least 1, not \`$2\`"
command -v sbatch >/dev/null || refuse "no sbatch on the path: run it where jobs are submitted"
shards=$1 seeds=$2
mkdir -p "$3" || refuse "OUTDIR $3 cannot be made"
# Slurm runs a copy of what it is given, from anywhere: so the jobs name files in full.
out=$(cd "$3" && pwd)
script=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/shard.sh
shift 3
if [ -n "${STREAMPROOF:-}" ]; then STREAMPROOF=$(realpath "$STREAMPROOF") && export STREAMPROOF; fi

# `exec`, and the signal to the batch shell alone: two minutes before its time is up a shard ends with what it has.
# shellcheck disable=SC2016  # for the job to expand
shard=$(printf 'exec %q "$SLURM_ARRAY_TASK_ID" %q %q %q swarm --jobs "$SLURM_CPUS_PER_TASK"' \
    "$script" "$shards" "$seeds" "$out")
array=$(sbatch --parsable --job-name=streamproof --cpus-per-task=4 --mem=4G --time=06:00:00 --signal=B:TERM@120 "$@" \
    --array="0-$((shards - 1))" --output="$out/slurm-%a.log" --open-mode=append --wrap="$shard")
array=${array%%;*} # a federation adds the cluster's name
# After any end: red shards are what it is for.
merge=$(sbatch --parsable --job-name=streamproof-merge --mem=4G "$@" --cpus-per-task=1 --time=01:00:00 \
    --dependency="afterany:$array" --output="$out/slurm-merge.log" --wrap="$(printf 'exec %q merge %q' "$script" "$out")")
echo "array $array: $shards shards of $seeds seeds; merge ${merge%%;*}; results in $out"
