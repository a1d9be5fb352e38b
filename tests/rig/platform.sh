#!/bin/bash
# In the guest of boot.sh, a service: the platform (Qencode's interface and ingest server) in a network of its own, and
# the way to it. The way is made only when onair has missed it; at a boot after a power cut the stream runs, as it would
# at a platform that kept its power.
set -euo pipefail
export PATH=$PATH:/app
boot=$(tr '\0' '\n' < /rig/job/env | sed -n 's/^BOOT=//p')
out=/out/boot/lab.$boot
status() { systemctl show onair --property StatusText --value; }

ip netns add server
ip link add uplink type veth peer name eth0 netns server
ip -n server link set lo up
ip -n server addr add 10.77.0.1/24 dev eth0
ip -n server link set eth0 up

# The same seed: the same stream, by its id.
ip netns exec server onair lab --listen 10.77.0.1:8080 --profile qencode --port qencode=8081 --seed 7 \
    --rest --rest-port qencode=8087 --qencode-key-file /etc/platform/key --report "$out.json" > "$out.out" 2> "$out.log" &
lab=$!
trap 'kill -TERM $lab; wait $lab || true; sync -f /out; exit 0' TERM
until grep -q '^page ' "$out.out"; do sleep 0.1; done
[ "$boot" != 2 ] || ip netns exec server onair stream start --config /etc/platform/onair.toml

until status | grep -q "main is off air"; do sleep 0.1; done
ip addr add 10.77.0.2/24 dev uplink
ip link set uplink up
cut -d' ' -f1 /proc/uptime > /run/reachable
wait $lab
