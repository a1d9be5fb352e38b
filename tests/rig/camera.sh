#!/bin/bash
# In the guest: a V4L2 camera (driver vivid) and an ALSA microphone (driver snd-aloop) go on air at the lab.
# A camera that is taken away and brought back stays in the same session.
. /t/lib.sh
rig-camera up || fail "no camera"
rig-mic up && rig-mic tone 440 || fail "no microphone"

step "devices"
onair devices | tee "$work/devices.txt"
grep -q vivid "$work/devices.txt" || fail "onair devices does not list the camera"

start_lab ome-0.21
start_agent '{ source = "camera", device = "vivid", size = "640x360", fps = 30, bitrate = "1 Mbit/s" }' \
    '{ source = "microphone", device = "plughw:CARD=Loopback,DEV=1" }'
within 20 "picture of the camera" said "source is live" video
within 20 "sound of the microphone" said "source is live" audio
hold 10

step "camera taken away"
mark
rig-camera unplug
passed "the kernel has removed the node"
within 10 "slate" said "source is away" video
took "slate" "source is away" video
hold 3
step "camera brought back"
mark
rig-camera plug
passed "the kernel has made the node"
within 20 "picture is back" said "source is live" video
took "picture" "source is live" video
hold 5

stop_agent 10
stop_lab
judge 's["reconnects"] == 0' 's["violations"] == []' \
    's["video"]["width"] == 640 and s["video"]["height"] == 360' \
    's["video"]["frames_decoded"] >= 300' \
    's["video"]["frames_decoded"] >= 0.97 * agent["sessions"][0]["video"]["frames_sent"]' \
    's["video"]["freeze_ms_max"] is None or s["video"]["freeze_ms_max"] <= 1000' \
    's["audio"]["seconds_decoded"] >= 15'
