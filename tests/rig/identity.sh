#!/bin/bash
# In the guest: a USB webcam is named by its number. While it is unplugged another camera takes that number: that one
# never goes on air, and the webcam is found again under its new number. A microphone that delivers nothing but silence
# is said to. A webcam that stays silent has its USB port reset.
. /t/lib.sh
rig-usb up || fail "no webcam"
webcam=$(cat /sys/class/video4linux/video0/name)
onair devices | tee "$work/devices.txt"
microphone=$(sed -n 's/^audio = .*device = "\([^"]*\)".*/\1/p' "$work/devices.txt")

start_lab ome-0.21
start_agent '{ source = "camera", device = "/dev/video0", size = "640x480", fps = 10, bitrate = "500 kbit/s" }' \
    "{ source = \"microphone\", device = \"$microphone\", silent_after = \"3s\" }"
within 20 "picture of the webcam" said "source is live" video
within 20 "sound of its microphone" said "source is live" audio

step "another camera takes its number"
mark
rig-usb unplug
within 10 "slate" said "source is away" video
rig-camera up 1
other=$(cat /sys/class/video4linux/video0/name)
[ "$other" != "$webcam" ] || fail "the other camera did not take the number"
within 20 "refusal of the other camera" said "no other camera is taken for it" video
hold 5
said "source is live" video > /dev/null && fail "another camera is on air"
step "the webcam comes back under another number"
mark
rig-usb plug
within 30 "picture is back" said "source is live" video
within 30 "sound is back" said "source is live" audio
[ "$(cat /sys/class/video4linux/video0/name)" = "$other" ] || fail "the numbers are not as they should be"
took "picture" "source is live" video

step "the microphone hears nothing"
mark
rig-usb silence
within 15 "silence" said "silent" audio
took "silence" "silent" audio
rig-usb tone 440
within 10 "that it is over" said "that is over" audio

step "the camera stalls for good"
mark
rig-usb stall
within 20 "slate" said "source is away" video
within 60 "reset of its port" said "the USB port was reset"
took "reset" "the USB port was reset"
rig-usb resume
within 60 "picture is back" said "source is live" video
hold 3
stop_agent 10
stop_lab
never panicked
judge 's["reconnects"] == 0' 's["violations"] == []' 's["audio"]["gaps"] == 0' \
    's["video"]["freeze_ms_max"] is None or s["video"]["freeze_ms_max"] <= 1500'
