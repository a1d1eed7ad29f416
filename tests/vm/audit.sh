#!/usr/bin/env bash
# Runs `toka run` where the audit of the kernel is on, and looks whether agents that say nothing of a wall are told by the kernel's records of
# Landlock (Linux 6.15): a virtual machine that boots a distribution's kernel into a file system of a few files.
#
#   tests/vm/audit.sh KERNEL [TOKA]
#
# KERNEL is a vmlinuz of 6.15 or later, such as the one of Debian's linux-image-cloud-amd64; TOKA defaults to target/release/toka.
# Needs qemu-system-x86_64, a statically linked busybox, cpio and gzip. Prints what the machine says, and fails
# unless it says what it should.
set -euo pipefail

kernel=${1:?usage: $0 KERNEL [TOKA]}
toka=${2:-$(dirname "${BASH_SOURCE[0]}")/../../target/release/toka}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,etc,ws,new}
cp "$(command -v busybox)" "$root/bin/busybox"
for name in sh cat sleep mount echo poweroff mkdir cp switch_root kill uname; do ln -s busybox "$root/bin/$name"; done
cp "$toka" "$root/bin/toka"
ldd "$toka" | grep -oE '/[^ ]+' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
echo 'root:x:0:0:root:/ws:/bin/sh' >"$root/etc/passwd"

# Neither says a word.
cat >"$root/ws/silent.yaml" <<'YAML'
metadata: {name: signals}
spec: {process: {shell: "exec 2>/dev/null; kill -0 1 || exit 3"}}
---
metadata: {name: fails}
spec: {process: {shell: "exit 3"}}
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
uname -r
toka run silent.yaml --state-dir /tmp/state --json 2>&1 | cat
poweroff -f
INIT
chmod +x "$root/init" "$root/second"

(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initrd.gz"
timeout 300 qemu-system-x86_64 -accel tcg -m 1024 -smp 1 -kernel "$kernel" -initrd "$scratch/initrd.gz" \
    -append 'console=ttyS0 quiet panic=-1 audit=1 lsm=landlock,capability' -nographic -no-reboot |
    tr -d '\r' | tee "$scratch/out"

hint() {
    grep '"type":"agent_hint"' "$scratch/out" | grep "\"agent\":\"$1\"" || true
}
hint signals | grep -q '"by_kernel":true.*signals no process outside of its sandbox' ||
    { echo "what it signals is not told" >&2; exit 1; }
[[ -z $(hint fails) ]] || { echo "a wall is told where there was none" >&2; exit 1; }
echo 'all as expected'
