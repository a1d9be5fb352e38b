#!/bin/bash
# In the guest: the package is installed, given its one credential, and started as at boot; it is on air at a lab in the
# other network namespace, while camera, microphone and network are pulled for longer than the watchdog waits. Healthy,
# it is never ended by the watchdog; stopped by SIGSTOP or killed, it is ended and comes back. It is the package of an
# older version that is installed at first, and upgraded while on air.
. /t/lib.sh
watchdog=30

prop() { systemctl show onair --property "$1" --value; }
pid() { prop MainPID; }
restarts() { prop NRestarts; }
says() { prop StatusText | grep -F -- "$1"; }
active() { [ "$(prop ActiveState)" = active ]; }
on_air() { active && says "main is on air"; }
off_air() { says "main is off air"; }
restarted() { [ "$(restarts)" -gt "$1" ]; }

# healthy SECONDS: observe for this long; the daemon goes on as the same process.
healthy() {
    local before after
    before=$(pid)
    sleep "$1"
    after=$(pid)
    [ "$before" = "$after" ] || fail "the daemon was started anew (process $before, now $after): $(prop Result)"
    kill -0 "$lab" 2> /dev/null || fail "the lab has ended by itself"
}

step "install"
dpkg --install /app/older.deb || fail "the package cannot be installed"
getent passwd onair || fail "no user"
[ "$(systemctl is-enabled onair)" = enabled ] || fail "it is not enabled"
[ "$(systemctl is-active onair)" = inactive ] || fail "it was started without its credential"
onair check --offline || fail "the configuration has faults"
[ "$(stat -c '%U %a' /etc/credstore)" = "root 700" ] || fail "no place for credentials"

rig-net up
mkdir -p /etc/systemd/system/onair.service.d
printf '[Service]\nNetworkNamespacePath=/run/netns/agent\n' > /etc/systemd/system/onair.service.d/rig.conf
systemctl daemon-reload
journalctl --unit onair --follow --lines all --output short-precise > "$agent_log" &

rig-net in server onair lab --listen 10.77.0.1:8080 --profile qencode --report "$work/lab.json" > "$lab_out" 2> "$lab_log" &
lab=$!
within 20 "the lab's address" grep -q "^lab qencode " "$lab_out"
url=$(sed -n 's/^lab qencode \([^ ]*\).*/\1/p' "$lab_out")
key=${url##*/}
step "lab at ${url%/*}"

step "boot, without the credential"
systemctl start --no-block multi-user.target
within 60 "several attempts to start" restarted 2
said "qencode-url" || fail "it does not say what is missing"
step "the credential is filled in"
mark
install -m 0600 /dev/stdin /etc/credstore/qencode-url <<< "$url"
within 60 "on air, without a device" on_air
passed "on air, without a device,"

step "confined"
status=/proc/$(pid)/status
grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' "$status"
grep -q "^Uid:[[:space:]]*$(id -u onair)[[:space:]]" "$status" || fail "it is another user"
grep -q '^CapBnd:[[:space:]]*0*$' "$status" || fail "it may have capabilities"
grep -q '^NoNewPrivs:[[:space:]]*1$' "$status" || fail "it may gain privileges"
grep -q '^Seccomp:[[:space:]]*2$' "$status" || fail "its system calls are not filtered"
systemd-analyze security --no-pager --threshold=20 onair > "$work/security" || fail "it is exposed"
tail -n 1 "$work/security"

# The kernel learns of cameras and sound cards only now.
step "webcam plugged in for the first time"
mark
rig-usb up || fail "no webcam"
within 60 "picture" said "source is live" video
within 60 "sound" said "source is live" audio
passed "picture and sound"
healthy $((watchdog + 10))

step "camera and microphone pulled"
mark
rig-usb unplug
within 15 "slate" said "source is away" video
within 15 "silence" said "source is away" audio
healthy $((watchdog + 10))
on_air || fail "it is not on air without a camera"
mark
rig-usb plug
within 60 "picture" said "source is live" video
within 60 "sound" said "source is live" audio
passed "picture and sound"

step "camera and microphone stall"
mark
rig-usb stall
rig-usb mute
within 30 "slate" said "source is away" video
within 30 "silence" said "source is away" audio
healthy $((watchdog + 10))
mark
rig-usb resume
rig-usb tone 440
within 60 "picture" said "source is live" video
within 60 "sound" said "source is live" audio
passed "picture and sound"

step "network cut"
rig-net cut
within 60 "off air" off_air
healthy $((watchdog + 10))
mark
rig-net heal
within 60 "on air" on_air
passed "on air"

step "the clock goes a year ahead, and back"
sessions=$(grep -c "media accepted" "$agent_log")
date --set "1 year" > "$work/said"
healthy $((watchdog + 10))
on_air || fail "a clock that goes ahead took it off air"
date --set "1 year ago" > "$work/said"
healthy 10
on_air || fail "a clock that goes back took it off air"
[ "$(grep -c "media accepted" "$agent_log")" = "$sessions" ] || fail "it took another session"

step "reload"
mark
sed -i 's/source = "camera" /source = "camera", bitrate = "1 Mbit\/s" /' /etc/onair/onair.toml
systemctl reload onair || fail "it cannot be reloaded"
within 20 "the configuration was read" said "the configuration was read"
healthy 5
on_air || fail "the reload took it off air"

# stuck SIGNAL SECONDS: the process gets this signal; within so long it is another one, and soon on air.
stuck() {
    local before
    before=$(restarts)
    mark
    kill "-$1" "$(pid)"
    within "$2" "another process" restarted "$before"
    passed "another process"
    within 60 "on air" on_air
    passed "on air"
    [ "$(restarts)" = $((before + 1)) ] || fail "it took several starts"
}
never "Watchdog timeout"
step "stopped"
stuck STOP $((watchdog + 20))
said "Watchdog timeout" || fail "it was not the watchdog that ended it"
step "killed"
stuck KILL 20

step "upgrade"
changed=$(cat /etc/onair/onair.toml)
before=$(pid)
mark
dpkg --force-confold --install /app/onair.deb || fail "the package cannot be upgraded"
within 60 "on air" on_air
passed "on air"
[ "$(pid)" != "$before" ] || fail "the former program goes on"
[ "$(cat /etc/onair/onair.toml)" = "$changed" ] || fail "the configuration is not as the administrator left it"
[ "$(systemctl is-enabled onair)" = enabled ] || fail "it is not enabled any more"
step "upgrade of one that was stopped"
systemctl stop onair
dpkg --force-confold --install /app/onair.deb || fail "the package cannot be upgraded"
[ "$(systemctl is-active onair)" = inactive ] || fail "an upgrade starts what was stopped"
systemctl start onair
within 60 "on air" on_air

step "status and flight recorder"
for ask in healthz readyz metrics; do
    rig-net in agent python3 -c 'import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1]).read().decode())' \
        "http://127.0.0.1:9810/$ask" > "$work/$ask" || fail "/$ask says no: $(cat "$work/$ask")"
done
onair bundle --output "$work/bundle.tar.gz" || fail "no bundle"
python3 - "$work/bundle.tar.gz" "$key" <<- 'PYTHON' || fail "the bundle is not what it should be"
	import sys, tarfile
	files = [f for f in tarfile.open(sys.argv[1]) if f.isfile()]
	texts = [tarfile.open(sys.argv[1]).extractfile(f.name).read() for f in files]
	print(len(files), "files,", sum(map(len, texts)), "bytes")
	recorded = any(b"on air" in text for text in texts)
	leaks = [f.name for f, text in zip(files, texts) if sys.argv[2].encode() in text]
	sys.exit(not recorded or bool(leaks))
PYTHON

step "secrets"
never "$key"
! grep -F -- "$key" "$work/metrics" || fail "the metrics tell the credential"
! grep -lF -- "$key" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2> /dev/null || fail "the credential is seen in /proc"

step "stop"
mark
systemctl stop onair
passed "stopped"
[ "$(prop Result) $(prop ExecMainStatus)" = "success 0" ] || fail "it did not end in order: $(prop Result)"
stop_lab
never panicked
python3 - "$work/lab.json" <<- 'PYTHON' || fail "the lab saw faults"
	import json, sys
	sessions = json.load(open(sys.argv[1]))["sessions"]
	for s in sessions:
	    print(s["video"]["frames_decoded"], "pictures,", s["audio"]["seconds_decoded"], "s of sound,", s["violations"])
	sys.exit(not sessions or any(s["violations"] for s in sessions))
PYTHON

step "purge"
dpkg --purge onair || fail "the package cannot be purged"
for left in /usr/bin/onair /etc/onair /var/lib/onair /usr/lib/systemd/system/onair.service; do
    [ ! -e "$left" ] || fail "it leaves $left"
done
