#!/bin/bash
# In the guest, one machine started four times on one disk: the package is installed and its credential filled in; then
# the machine is booted, loses its power while on air, is booted again, is shut down in order, and is booted once more.
# Nobody logs in: what is looked at here is already on air, for a boot is over only when the service says that it is
# ready. The platform, whose stream onair starts and has to stop, is reached only after onair has missed it; it goes on
# while the machine has no power.
. /t/lib.sh
agent_log=$work/agent.$BOOT.log
: > "$agent_log"
again=85 # the status by which tests/rig/run starts this machine once more

prop() { systemctl show onair --property "$1" --value; }
on_air() { [ "$(prop ActiveState)" = active ] && prop StatusText | grep -F "main is on air"; }

# The stream's state, as the platform itself says.
asked() {
    ip netns exec server onair stream status --config /etc/platform/onair.toml --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["stream"]["state"])'
}
at_platform() { [ "$(asked)" = "$1" ]; }

# came_up: it is on air by itself; says after how long.
came_up() {
    within 60 "on air" on_air
    journalctl --boot --unit onair --output short-monotonic > "$agent_log"
    journalctl --boot --unit onair --output json > "$work/journal"
    python3 - "$work/journal" /run/reachable <<- 'PYTHON' || fail "the journal does not say how it came on air"
		import json, sys
		lines = [json.loads(line) for line in open(sys.argv[1])]
		def at(text):
		    return next(int(line["__MONOTONIC_TIMESTAMP"]) / 1e6 for line in lines if text in line["MESSAGE"])
		begun, on_air, way = at("Starting onair"), at(": on air: "), float(open(sys.argv[2]).read())
		print("     started %.1f s, platform reachable %.1f s, on air %.1f s after the kernel" % (begun, way, on_air))
		sys.exit(not begun < way < on_air)
	PYTHON
    [ "$(prop NRestarts)" = 0 ] || fail "it took several starts"
    within 30 "picture" said "source is live" video
    within 30 "sound" said "source is live" audio
    within 30 "media at the platform" at_platform live
}

install_it() {
    dpkg --install /app/onair.deb || fail "the package cannot be installed"
    key=rig-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
    install -m 0600 /dev/stdin /etc/credstore/qencode-api-key <<< "$key"
    cat > /etc/onair/onair.toml <<- 'TOML'
		[feed.front]
		video = { source = "camera" }
		audio = { source = "microphone" }
		[publisher.main]
		feed = "front"
		to = "qencode"
		api_key = { credential = "qencode-api-key" }
		stream_name = "front"
		api = "http://10.77.0.1:8087/v1"
		[daemon]
		state_dir = "/var/lib/onair"
	TOML
    onair check --offline || fail "the configuration has faults"

    # A camera and a microphone that are there at boot.
    printf 'vivid\nsnd-aloop\n' > /etc/modules-load.d/rig.conf
    echo 'options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 multiplanar=1' > /etc/modprobe.d/rig.conf
    echo 'options snd-aloop pcm_substreams=2 id=Loopback' >> /etc/modprobe.d/rig.conf
    rig-mic default

    install -d -m 0700 /etc/platform
    install -m 0600 /dev/stdin /etc/platform/key <<< "$key"
    sed -e 's|{ credential = "qencode-api-key" }|{ file = "key" }|' -e '/^\[daemon\]/,$d' /etc/onair/onair.toml \
        > /etc/platform/onair.toml
    install -m 0755 /t/platform.sh /usr/local/sbin/platform
    # Before, so that it is there to the end at a shutdown; what it does at boot comes later all the same.
    cat > /etc/systemd/system/platform.service <<- 'UNIT'
		[Unit]
		Description=The platform and the way to it
		Before=onair.service
		[Service]
		Type=exec
		ExecStartPre=-/bin/cp -a /var/lib/onair /var/lib/found
		ExecStart=/usr/local/sbin/platform
		KillMode=mixed
		[Install]
		WantedBy=multi-user.target
	UNIT
    systemctl enable platform.service
}

# What the power cut left, as it was found before onair ran again.
what_was_left() {
    python3 - /var/lib/found/streams.json <<- 'PYTHON' || fail "the state file is not what it should be"
		import json, sys
		streams = json.load(open(sys.argv[1]))["streams"]
		print("    ", streams)
		sys.exit(not (len(streams) == 1 and streams[0]["ours"]))
	PYTHON
    sed 's|/var/lib/onair|/var/lib/found|' /etc/onair/onair.toml > /root/found.toml
    onair bundle --config /root/found.toml --output "$work/found.tar.gz" || fail "no bundle"
    python3 - "$work/found.tar.gz" "$(cat /etc/platform/key)" <<- 'PYTHON' || fail "the recorder is not what it should be"
		import sys, tarfile
		bundle = tarfile.open(sys.argv[1])
		texts = {f.name: bundle.extractfile(f).read() for f in bundle if f.isfile()}
		print("    ", {name: len(text) for name, text in texts.items()})
		recorded = any(b"on air" in text for name, text in texts.items() if "recorder" in name)
		sys.exit(not recorded or any(sys.argv[2].encode() in text for text in texts.values()))
	PYTHON
}

case $BOOT in
    0)
        step "install"
        install_it
        [ "$(systemctl is-active onair)" = inactive ] || fail "it was started already"
        rig-power off $again;;
    1)
        step "first boot"
        came_up
        said "starting the stream" || fail "it did not start the stream"
        sleep 10
        on_air || fail "it did not stay on air"
        step "power cut"
        rig-power cut $again;;
    2)
        step "boot after the power cut"
        came_up
        said "going on with it" || fail "it does not know its stream any more"
        never "cannot be read"
        what_was_left
        step "stopped and started"
        systemctl stop onair
        at_platform stopped || fail "the stream was left running: $(asked)"
        systemctl start onair
        within 60 "on air" on_air
        step "shutdown"
        rig-power off $again;;
    *)
        step "boot after the shutdown"
        grep '^bill qencode .*, Stopped$' "$work/lab.2.out" || fail "the shutdown left the stream running"
        came_up
        said "starting the stream" || fail "it did not start the stream"
        never panicked
        systemctl stop onair;;
esac
