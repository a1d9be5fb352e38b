#!/bin/bash
# In the guest: a USB webcam (MJPEG, uvcvideo), named by the path that survives replugging, and its microphone
# (snd-usb-audio) are on air at the lab while the cable is pulled and put back, the camera stalls, and broken pictures
# come. It is one session to the end, with a slate where there is no picture, and a camera that does not answer does
# not hinder the drain.
. /t/lib.sh
rig-usb up || fail "no webcam"

step "devices"
onair devices | tee "$work/devices.txt"
grep -q MJPG "$work/devices.txt" || fail "onair devices does not list the webcam's formats"
device=$(sed -n 's/^video = .*device = "\([^"]*\)".*/\1/p' "$work/devices.txt")
[[ $device == /dev/v4l/by-id/* ]] || fail "onair devices does not propose a path that survives replugging: $device"
microphone=$(sed -n 's/^audio = .*device = "\([^"]*\)".*/\1/p' "$work/devices.txt")

start_lab ome-0.21
# At this size and rate the webcam has MJPEG only.
start_agent '{ source = "camera", device = "'"$device"'", size = "1280x720", fps = 15, bitrate = "1 Mbit/s" }' \
    "{ source = \"microphone\", device = \"$microphone\" }"
within 20 "picture of the webcam" said "source is live" video
within 20 "sound of its microphone" said "source is live" audio
hold 5

step "cable pulled"
mark
rig-usb unplug
passed "the kernel has removed the nodes"
within 10 "slate" said "source is away" video
within 10 "silence" said "source is away" audio
took "slate" "source is away" video
hold 3
step "cable put back"
mark
rig-usb plug
passed "the kernel has made the nodes"
within 20 "picture is back" said "source is live" video
within 20 "sound is back" said "source is live" audio
took "picture" "source is live" video
took "sound" "source is live" audio
hold 3

step "broken pictures"
mark
rig-usb corrupt 10
within 10 "notice of a broken picture" said "unusable picture" video
hold 3
said "source is away" video > /dev/null && fail "a few broken pictures are no reason for a slate"
hold 3
rig-usb error 10
hold 2

step "camera stalls"
mark
rig-usb stall
within 15 "slate" said "source is away" video
took "slate" "source is away" video
hold 3
step "camera goes on"
mark
rig-usb resume
within 40 "picture is back" said "source is live" video
took "picture" "source is live" video
hold 3

step "camera stalls, and the agent is told to end"
mark
rig-usb stall
within 15 "slate" said "source is away" video
stop_agent 10
stop_lab
never panicked
judge 's["reconnects"] == 0' 's["violations"] == []' \
    's["video"]["width"] == 1280 and s["video"]["height"] == 720' \
    's["video"]["frames_decoded"] >= 0.97 * agent["sessions"][0]["video"]["frames_sent"]' \
    's["video"]["freeze_ms_max"] is None or s["video"]["freeze_ms_max"] <= 1500' \
    's["audio"]["seconds_decoded"] >= 15'
