#!/usr/bin/env bash
# One shard of a sweep, and the report over all of them. Every engine of this folder calls this and adds nothing to it.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: shard.sh INDEX SHARDS SEEDS OUTDIR [WHAT…]
       shard.sh merge OUTDIR

The first form runs shard INDEX (0 to SHARDS - 1) of SEEDS seeds and exits with streamproof's exit code. WHAT is what
`streamproof run` is given beside seeds and format: by default `swarm`; others are `swarm --jobs 4`, or
`--job job.toml --events events.csv`. It leaves in OUTDIR, and replaces if there is an earlier try:

  shard-INDEX/         the run, as `streamproof report` reads it: figures, plans and capsules of failures
  shard-INDEX.jsonl    one JSON object a seed, then one a failure, then the summary
  shard-INDEX.log      progress, errors, GitHub's annotations
  shard-INDEX.xml      JUnit
  shard-INDEX.md       summary in Markdown
  shard-INDEX.status   SHARDS, SEEDS, its first seed, its seeds, its exit code: one line, written last

The second form reads all shards in OUTDIR and writes report.html and summary.md there. It exits with the worst exit code
of the shards, or 1 if a shard is missing. On GitHub it also prints at most 10 annotations and the step's summary.

Variables: STREAMPROOF, the program [default: streamproof on the path, else target/release/streamproof];
FIRST_SEED, where the sweep begins [default: 0].
TEXT
}

refuse() {
    echo "shard.sh: $1" >&2
    exit 2
}

# A number that bash takes as decimal and that does not overflow where it is added or multiplied once.
number() {
    [[ $2 =~ ^(0|[1-9][0-9]{0,17})$ ]] || refuse "$1 must be a whole number of at most 18 digits, not \`$2\`"
}

find_program() {
    local checkout
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    if [ -n "${STREAMPROOF:-}" ]; then
        program=$STREAMPROOF
        [ -f "$program" ] || refuse "STREAMPROOF names $program, which is not a file"
        [ -x "$program" ] || refuse "STREAMPROOF names $program, which cannot be executed"
        program=$(realpath "$program")
    elif ! program=$(command -v streamproof); then
        program=$checkout/target/release/streamproof
        [ -x "$program" ] ||
            refuse "no streamproof on the path and none built in $checkout: build it, or name it in STREAMPROOF"
    fi
}

meaning() {
    case $1 in
        0) echo "pass" ;;
        1) echo "streamproof failed" ;;
        2) echo "usage" ;;
        4) echo "nothing selected" ;;
        10) echo "safety violated" ;;
        11) echo "not live" ;;
        12) echo "the system panicked" ;;
        13) echo "not deterministic" ;;
        14) echo "inconclusive" ;;
        15) echo "rare states not reached" ;;
        16) echo "a canary was not caught" ;;
        130) echo "interrupted" ;;
        *) echo "ended abnormally" ;;
    esac
}

# The place of an exit code, the worst first, as the program orders its own; a code it does not have is as bad as 1.
rank() {
    local -A of=([16]=1 [13]=2 [10]=3 [12]=4 [11]=5 [14]=6 [15]=7 [2]=8 [4]=9 [130]=10 [0]=11)
    echo "${of[$1]:-0}"
}

run_shard() {
    [ $# -ge 4 ] || { usage >&2; refuse "4 arguments are needed, there are $#"; }
    local index=$1 shards=$2 seeds=$3 out=$4
    shift 4
    number INDEX "$index"
    number SHARDS "$shards"
    number SEEDS "$seeds"
    local base=${FIRST_SEED:-0}
    number FIRST_SEED "$base"
    ((shards >= 1)) || refuse "SHARDS must be at least 1"
    ((shards <= 1000000)) || refuse "SHARDS must be at most 1000000, not $shards"
    ((seeds <= 1000000000000)) || refuse "SEEDS must be at most 10^12, not $seeds"
    ((index < shards)) || refuse "INDEX must be below SHARDS: $shards shards are 0 to $((shards - 1)), there is no $index"
    ((seeds >= shards)) || refuse "$seeds seeds cannot fill $shards shards"
    [ -n "$out" ] || refuse "OUTDIR is empty"
    # Where the shards part does not depend on which shard asks: none overlaps, none leaves a seed out.
    local first=$((base + index * seeds / shards)) next=$((base + (index + 1) * seeds / shards))
    local count=$((next - first))
    find_program
    mkdir -p "$out" || refuse "OUTDIR $out cannot be made"
    [ -w "$out" ] || refuse "OUTDIR $out cannot be written"
    out=$(cd "$out" && pwd)

    # The program runs in a folder of its own, so that its run is the only one there; a user's files keep their place.
    local what=() before=''
    for argument in "$@"; do
        case $before:$argument in
            --job:* | --events:*)
                [ -f "$argument" ] || refuse "$before names $argument, which is not a file"
                argument=$(realpath "$argument")
                ;;
            *:--job=* | *:--events=*) refuse "write ${argument%%=*} and its file as two arguments" ;;
            *:--seed | *:--seeds | *:--format | *:--junit | *:--seed=* | *:--seeds=* | *:--format=* | *:--junit=*)
                refuse "${argument%%=*} is for this script to give"
                ;;
        esac
        what+=("$argument")
        before=$argument
    done
    [ $# -gt 0 ] || what=(swarm)

    local one=$out/shard-$index
    # A shard that is tried again begins anew: half of one try and half of another would count seeds twice.
    rm -rf "$one" "$one".{part,jsonl,log,xml,md,status}
    mkdir "$one.part"
    # Annotations are kept for the merge, which shows ten of all shards, where each shard would show its own.
    exec 3> >(tee "$one.log" | sed -u '/^::/d' >&2)
    local shown=$!
    echo "shard $index of $shards: seeds $first to $((next - 1)): $program run ${what[*]}" >&2
    # As on GitHub, wherever it runs: that is how the program comes to write annotations and a summary in Markdown.
    (
        cd "$one.part"
        exec env GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY="$one.md" \
            "$program" run "${what[@]}" --seed "$first" --seeds "$count" --format json --junit "$one.xml" \
            >"$one.jsonl" 2>&3 3>&-
    ) &
    local child=$! code=0
    exec 3>&-
    # An engine that wants its machine back tells this shell alone. The program then ends with what it has.
    # shellcheck disable=SC2064  # the child of now
    trap "kill -TERM $child 2>/dev/null || true" TERM INT
    wait "$child" || code=$?
    # A signal ends `wait`, not the program.
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code=$?
    done
    wait "$shown" || true
    # The name of the run is the second it began, the same on many machines; the shard's number is a better one. And
    # folders that begin with a dot are left out where some engines gather artifacts.
    local runs=("$one.part/.streamproof/runs"/*/)
    [ ! -d "${runs[0]}" ] || mv "${runs[0]}" "$one"
    rm -rf "$one.part"
    # Whole or not at all, since a merge may be waiting for it.
    echo "$shards $seeds $first $count $code" >"$one.status.part"
    mv "$one.status.part" "$one.status"
    echo "shard $index of $shards: exit $code: $(meaning "$code")" >&2
    return "$code"
}

merge() {
    [ $# = 1 ] || { usage >&2; refuse "merge takes OUTDIR and nothing else"; }
    local out=$1
    [ -d "$out" ] || refuse "OUTDIR $out is not there"
    find_program
    local statuses=("$out"/shard-*.status)
    [ -f "${statuses[0]}" ] || refuse "no shard ended in $out: there is no shard-*.status"
    local shards seeds sweep total first count code
    read -r shards seeds _ <"${statuses[0]}"
    number "the number of shards in ${statuses[0]}" "$shards"

    local worst=0 rows='' runs=() failing='' missing=0 red=0 all=0 kept i done_
    for ((i = 0; i < shards; i++)); do
        local one=$out/shard-$i
        if [ ! -f "$one.status" ]; then
            missing=$((missing + 1)) worst=1
            rows+="| $i | | | | | did not end, or its files did not arrive |"$'\n'
            continue
        fi
        read -r sweep total first count code <"$one.status"
        [ "$sweep $total" = "$shards $seeds" ] ||
            refuse "$out holds two sweeps: $total seeds in $sweep shards (shard $i), and $seeds seeds in $shards shards"
        done_=0
        if [ -f "$one/run.json" ]; then
            runs+=("$one")
            done_=$(wc -l <"$one/seeds.jsonl")
        fi
        kept=("$one"/capsules/*.capsule)
        [ -e "${kept[0]}" ] || kept=()
        all=$((all + done_))
        (($(rank "$code") >= $(rank "$worst"))) || worst=$code
        rows+="| $i | $first | $count | $done_ | $code | $(meaning "$code")"
        [ "$code" = 0 ] || red=$((red + 1))
        # The program passes without its results store, if that cannot be written; the report would lack these seeds.
        if [ "$code" = 0 ] && ((done_ < count)); then
            red=$((red + 1)) worst=1
            rows+=", but not all of its seeds are kept"
        fi
        ((${#kept[@]} == 0)) || rows+=", ${#kept[@]} capsules"
        rows+=" |"$'\n'
        [ ! -f "$one.md" ] || failing+=$(sed -n "s/^- \*\*/- shard $i, **/p" "$one.md")$'\n'
    done

    {
        echo "### streamproof: $all of $seeds seeds, shards: $shards"
        echo
        if ((red + missing == 0)); then echo "All shards passed."; else echo "$red failed, $missing missing."; fi
        echo
        printf '%s\n' "$failing" | sed '/^$/d'
        [ -z "${failing//[$'\n']/}" ] || echo
        echo "| shard | first seed | seeds | done | exit | |"
        echo "|--|--|--|--|--|--|"
        printf '%s' "$rows"
    } >"$out/summary.md"
    cat "$out/summary.md"
    if [ -n "${GITHUB_ACTIONS:-}" ]; then
        # GitHub shows ten of a step and drops the rest without a word. From each shard in turn, since failures of one
        # shard tend to be alike.
        local logs=("$out"/shard-*.log)
        awk '/^::error / { print ++seen[FILENAME] "\t" $0 }' "${logs[@]}" | sort -s -n -k 1,1 | cut -f 2- |
            sed -n '1,10p'
        [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"
    fi
    if ((${#runs[@]} == 0)); then
        echo "shard.sh: no shard left a run: there is nothing to report on" >&2
        exit $((worst == 0 ? 1 : worst))
    fi
    "$program" report "${runs[@]}" --merge --output "$out/report.html" || { echo "shard.sh: no report" >&2; exit 1; }
    exit "$worst"
}

case ${1:-} in
    -h | --help | help) usage ;;
    merge) shift; merge "$@" ;;
    *) run_shard "$@" ;;
esac
