#!/usr/bin/env bash
# A sweep as a Slurm array, and one job after it that merges. Run it where sbatch is, from a folder that all nodes see.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: slurm-array.sh SHARDS SEEDS OUTDIR [SBATCH-OPTION…]

OUTDIR is on a file system that all nodes share: shard N leaves its run in OUTDIR/N, the merge OUTDIR/report.html and
OUTDIR/junit.xml, and each its log. Options go to the array and to the merge, after these defaults:
--cpus-per-task=4 --mem=4G --time=06:00:00, and --cpus-per-task=1 --time=01:00:00 for the merge, which are kept.
An option with a value is one word: --partition=batch. It prints the numbers of the two jobs. The merge's exit code is
the sweep's.

Variables: STREAMPROOF, the program [default: streamproof on the path, else target/release/streamproof];
FIRST_SEED, where the sweep begins [default: 0]. The program's own, such as STREAMPROOF_MAX_FAIL, reach the jobs too.
TEXT
}

refuse() {
    echo "slurm-array.sh: $1" >&2
    exit 2
}

case ${1:-} in -h | --help) usage; exit ;; esac
[ $# -ge 3 ] || { usage >&2; refuse "3 arguments are needed, there are $#"; }
[[ $1 =~ ^[1-9][0-9]{0,6}$ ]] || refuse "SHARDS must be a number of at least 1, not \`$1\`"
command -v sbatch >/dev/null || refuse "no sbatch on the path: run it where jobs are submitted"
shards=$1 seeds=$2 first=${FIRST_SEED:-0}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
program=${STREAMPROOF:-$(command -v streamproof || echo "$checkout/target/release/streamproof")}
if [ ! -f "$program" ] || [ ! -x "$program" ]; then refuse "no program $program: build it, or name it in STREAMPROOF"; fi
# Whether it takes the numbers: better here than from each shard.
"$program" run swarm --seed "$first" --seeds "$seeds" --shard "$shards/$shards" --show-config >/dev/null
mkdir -p "$3" || refuse "OUTDIR $3 cannot be made"
# Slurm runs a copy of what it is given, from anywhere: so the jobs name files in full.
out=$(cd "$3" && pwd) program=$(realpath "$program")
shift 3

# A shard that is tried again begins anew. `exec`, and the signal to the batch shell alone: two minutes before its time is
# up a shard ends with what it has.
# shellcheck disable=SC2016  # for the job to expand
shard=$(printf 'rm -rf %q/"$SLURM_ARRAY_TASK_ID" && exec %q run swarm --seed %q --seeds %q --jobs "$SLURM_CPUS_PER_TASK" \
    --shard "$SLURM_ARRAY_TASK_ID"/%q --run-dir %q/"$SLURM_ARRAY_TASK_ID"' \
    "$out" "$program" "$first" "$seeds" "$shards" "$out")
array=$(sbatch --parsable --job-name=streamproof --cpus-per-task=4 --mem=4G --time=06:00:00 --signal=B:TERM@120 "$@" \
    --array="1-$shards" --output="$out/slurm-%a.log" --open-mode=append --wrap="$shard")
array=${array%%;*} # a federation adds the cluster's name
# After any end: red shards are what it is for.
merge=$(sbatch --parsable --job-name=streamproof-merge --mem=4G "$@" --cpus-per-task=1 --time=01:00:00 \
    --dependency="afterany:$array" --output="$out/slurm-merge.log" \
    --wrap="$(printf 'exec %q report %q/*/ --merge --junit %q/junit.xml --output %q/report.html' \
        "$program" "$out" "$out" "$out")")
echo "array $array: $shards shards of $seeds seeds; merge ${merge%%;*}; results in $out"
