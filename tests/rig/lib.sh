# Shared by the scenarios, sourced in the guest: a lab, an agent, and waiting for what they say.
#
# Nothing here sleeps for a fixed time to let something happen: every wait is for a state, with a deadline. The one
# exception is `hold`, which is the length of an observation.

export PATH=$PATH:/app
scenario=$(basename "$0" .sh)
work=/out/$scenario
mkdir -p "$work"
[ "${BOOT:-0}" -gt 0 ] || rm -f "$work"/*
lab_log=$work/lab.log agent_log=$work/agent.log lab_out=$work/lab.out
: > "$lab_log"; : > "$agent_log"; : > "$lab_out"
mark=0

fail() {
    echo "$scenario: $*" >&2
    echo "--- end of the agent's log" >&2
    tail -n 25 "$agent_log" >&2
    echo "--- end of the lab's log" >&2
    tail -n 10 "$lab_log" >&2
    kill "${agent:-}" "${lab:-}" 2> /dev/null
    exit 1
}

step() { echo "[$SECONDS s] $*"; }

# within SECONDS WHAT COMMAND...: until the command succeeds.
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" > /dev/null; do
        [ $SECONDS -lt "$deadline" ] || fail "not seen in time: $what"
        sleep 0.1
    done
}

# From here on, `said` looks at new lines only, and `took` counts.
mark() {
    mark=$(wc -l < "$agent_log")
    marked_at=$EPOCHREALTIME
}

# passed WHAT: how long after the mark this is said.
passed() {
    python3 -c 'import sys, time; print("     %s after %.0f ms" % (sys.argv[2], (time.time() - float(sys.argv[1])) * 1000))' \
        "$marked_at" "$1"
}

# took WHAT TEXT...: how long after the mark the first line with these texts was written; it must be there.
took() {
    local what=$1
    shift
    said "$@" > "$work/said" || fail "never said: $*"
    python3 - "$marked_at" "$work/said" "$what" <<- 'PYTHON'
		import datetime, json, sys
		marked, lines, what = sys.argv[1:]
		line = json.loads(open(lines).readline())
		at = datetime.datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()
		print("     %s after %.0f ms" % (what, (at - float(marked)) * 1000))
	PYTHON
}

# said TEXT...: a line of the agent's log since the mark holds all of these texts.
said() {
    local lines
    lines=$(tail -n "+$((mark + 1))" "$agent_log")
    local text
    for text; do lines=$(grep -F -- "$text" <<< "$lines") || return 1; done
    echo "$lines"
}

# never TEXT...: the same must not be in the whole log.
never() {
    mark=0
    ! said "$@" > /dev/null || fail "should never have been said: $*"
}

# hold SECONDS: observe for this long; both programs must live on.
hold() {
    sleep "$1"
    kill -0 "$agent" 2> /dev/null || fail "the agent has ended by itself"
    kill -0 "$lab" 2> /dev/null || fail "the lab has ended by itself"
}

start_lab() { # PROFILE
    onair lab --profile "$1" --report "$work/lab.json" > "$lab_out" 2> "$lab_log" &
    lab=$!
    within 20 "the lab's address" grep -q "^lab $1 " "$lab_out"
    url=$(sed -n "s/^lab $1 \([^ ]*\).*/\1/p" "$lab_out")
    step "lab at $url"
}

start_agent() { # the feed's video and audio, as TOML
    cat > "$work/onair.toml" <<- TOML
		[feed.front]
		video = $1
		audio = $2
		[publisher.main]
		feed = "front"
		to = "ome"
		url = "$url"
	TOML
    onair check --config "$work/onair.toml" || fail "the configuration has faults"
    onair run --config "$work/onair.toml" --report "$work/agent.json" --log debug --log-format json 2> "$agent_log" &
    agent=$!
    within 60 "on air" said "on air"
    step "on air"
}

# stop_agent SECONDS: it must end in order within this time.
stop_agent() {
    local began=$SECONDS
    kill -TERM "$agent"
    within "$1" "the agent's end" gone "$agent"
    local status=0
    wait "$agent" || status=$?
    [ $status = 0 ] || fail "the agent ended with status $status"
    step "agent ended in $((SECONDS - began)) s"
}

gone() { ! kill -0 "$1" 2> /dev/null; }

stop_lab() {
    kill -TERM "$lab"
    within 20 "the lab's end" gone "$lab"
    local status=0
    wait "$lab" || status=$?
    step "lab ended with status $status"
}

# judge EXPRESSION...: Python over the two reports: `lab`, `agent`, and the one session `s` that the lab saw.
judge() {
    python3 - "$work" "$@" <<- 'PYTHON' || fail "the reports do not hold what they must"
		import json, sys
		folder = sys.argv[1]
		lab = json.load(open(folder + "/lab.json"))
		agent = json.load(open(folder + "/agent.json"))
		sessions = lab["sessions"]
		s = sessions[0] if sessions else None
		known = {"lab": lab, "agent": agent, "sessions": sessions, "s": s}
		print(json.dumps(s, indent=1))
		bad = 0
		for expression in ["len(sessions) == 1"] + sys.argv[2:]:
		    try:
		        holds = eval(expression, {"__builtins__": {"len": len, "max": max, "min": min}}, known)
		    except Exception as error:
		        holds = "cannot be told: %r" % error
		    print("ok   " if holds is True else "WRONG", expression, "" if holds in (True, False) else holds)
		    bad += holds is not True
		sys.exit(bad > 0)
	PYTHON
}
