#!/usr/bin/env bash
# Runs `toka run` on a host with control groups of version 2 alone, which most of today's machines are and the build
# machine may not be: a virtual machine that boots a distribution's kernel into a file system of a few files. That is
# not the first one, whose root no mount namespace can change.
#
#   tests/vm/unified.sh KERNEL [TOKA]
#
# KERNEL is a vmlinuz, such as the one of Debian's linux-image-cloud-amd64; TOKA defaults to target/release/toka.
# Needs qemu-system-x86_64, a statically linked busybox, cpio and gzip. Prints what the machine says, and fails
# unless each line of `expected` is among it.
set -euo pipefail

kernel=${1:?usage: $0 KERNEL [TOKA]}
toka=${2:-$(dirname "${BASH_SOURCE[0]}")/../../target/release/toka}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,etc,ws,new}
cp "$(command -v busybox)" "$root/bin/busybox"
for name in sh cat sleep mount echo tail poweroff mkdir seq dd tr setsid find wc cp switch_root; do ln -s busybox "$root/bin/$name"; done
cp "$toka" "$root/bin/toka"
ldd "$toka" | grep -oE '/[^ ]+' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
echo 'root:x:0:0:root:/ws:/bin/sh' >"$root/etc/passwd"

cat >"$root/ws/demo.yaml" <<'YAML'
metadata: {name: where}
spec: {process: {shell: "cat /proc/self/cgroup; echo done > $TOKA_ARTIFACTS/x"}}
---
metadata: {name: tasks}
tasks: {default: [{description: one, run: "cat $TOKA_INPUTS/where/x /proc/self/cgroup"}]}
dependencies: {required: {where: its result}}
---
metadata: {name: eater}
spec: {process: {shell: "x=$(dd if=/dev/zero bs=1M count=200 | tr '\\0' x); echo ${#x}"}}
security: {resource_limits: {max_memory: 32MB}}
---
metadata: {name: forks}
spec: {process: {shell: "setsid sleep 1000 & for i in $(seq 30); do sleep 100 & done"}}
security: {resource_limits: {max_processes: 16}}
YAML

cat >"$root/ws/walls.yaml" <<'YAML'
metadata: {name: walls}
spec: {process: {shell: "cat /etc/passwd > /dev/null; cat /ws/demo.yaml || echo hidden; echo x > /etc/x || echo closed"}}
YAML

cat >"$root/init" <<'INIT'
#!/bin/sh
mount -t tmpfs root /new
for part in bin lib lib64 usr etc ws second; do
    [ ! -e "/$part" ] || cp -a "/$part" /new/
done
mkdir /new/proc /new/sys /new/dev /new/tmp /new/run
exec switch_root /new /second
INIT
cat >"$root/second" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PATH=/bin HOME=/ws USER=root
cd /ws
try() {
    echo "== $1"
    toka run demo.yaml --state-dir "/tmp/$1" 2>&1 | cat
    toka run walls.yaml --state-dir "/tmp/$1-walls" --json 2>&1 | cat
    tail -n 5 "/tmp/$1"/projects/ws/agents/*/log
    echo "$1: groups left: $(find /sys/fs/cgroup -name 'toka*' | wc -l)"
}
try at-the-root
# A login session: our own group has processes, and must not hand out controllers.
mkdir /sys/fs/cgroup/session
echo $$ >/sys/fs/cgroup/session/cgroup.procs
try in-a-session
poweroff -f
INIT
chmod +x "$root/init" "$root/second"

(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initrd.gz"
timeout 300 qemu-system-x86_64 -accel tcg -m 1024 -smp 1 -kernel "$kernel" -initrd "$scratch/initrd.gz" \
    -append 'console=ttyS0 quiet panic=-1 lsm=landlock,capability' -nographic -no-reboot | tr -d '\r' | tee "$scratch/out"

expected=(
    'out of memory: peak 32 MiB of 32 MiB'
    "can't fork"
    'at-the-root: groups left: 0'
    'in-a-session: groups left: 0'
)
for line in "${expected[@]}"; do
    grep -qF "$line" "$scratch/out" || { echo "not said: $line" >&2; exit 1; }
done
# Both times, each layer, and what the agent saw of them.
for layer in mounts seccomp network cgroup process; do
    [[ $(grep -cE "agent_started.*\"walls\"|\"walls\".*agent_started" "$scratch/out") -eq 2 ]] || { echo "walls did not start twice" >&2; exit 1; }
    [[ $(grep -c "agent_started.*{\"layer\":\"$layer\",\"coverage\":\"full\"}" "$scratch/out") -eq 2 ]] ||
        { echo "$layer is not in force in full" >&2; exit 1; }
done
grep -q 'agent_started.*{"layer":"landlock","coverage":"\(full\|partial\)"' "$scratch/out" || { echo "no landlock" >&2; exit 1; }
# `tasks` is a file of every group of version 1, so the group of an agent of that name is called otherwise.
for leaf in where/main tasks_/call-1; do
    [[ $(grep -c "^0::/toka-.*/ws/$leaf\$" "$scratch/out") -eq 2 ]] || { echo "not in $leaf" >&2; exit 1; }
done
echo 'all as expected'
