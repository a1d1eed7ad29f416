#!/usr/bin/env bash
# Runs Toka as a service of a real systemd on a host with control groups of version 2 alone, and boots that host three
# times from the same disk: after an orderly reboot and after one that nobody was told of.
#
#   tests/vm/systemd.sh KERNEL MODULES ROOT [TOKA]
#
# KERNEL and MODULES are the vmlinuz and the folder lib/modules/VERSION of Debian's linux-image-cloud-amd64
# (`apt-get download`, `dpkg -x`), ROOT is a file system with systemd, which is copied and not changed:
#
#   mmdebstrap --variant=minbase --include=systemd,systemd-sysv,dbus,kmod,udev bookworm ROOT
#
# With bookworm systemd is older than 254, with trixie it is not: groups of agents lie beside or below the unit.
# TOKA defaults to target/release/toka. Needs root, qemu-system-x86_64, mkfs.ext4, a statically linked busybox, cpio and
# gzip; no network. Prints what the machine says, and fails unless each line of `expected` is among it.
set -euo pipefail

usage="usage: $0 KERNEL MODULES ROOT [TOKA]"
kernel=${1:?$usage} modules=${2:?$usage} tree=${3:?$usage}
here=$(dirname "${BASH_SOURCE[0]}")
toka=${4:-$here/../../target/release/toka}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

cp -a "$tree" "$root"
rm -rf "$root"/usr/share/{doc,man,locale} "$root/var/lib/apt"
install -D "$toka" "$root/usr/local/bin/toka"
install -m 644 "$here"/../../contrib/systemd/* -t "$root/etc/systemd/system"
cp "$here/systemd/show" "$root/usr/local/bin/show"
cp "$here/systemd"/*.service -t "$root/etc/systemd/system"
mkdir -p "$root/srv/shop"
cp "$here/systemd/agents.yaml" "$root/srv/shop"
# What a machine without devices, network and people does not need.
for unit in systemd-udevd systemd-udev-trigger systemd-timesyncd systemd-networkd systemd-logind systemd-firstboot \
    e2scrub_reap getty@tty1 serial-getty@ttyS0 console-getty systemd-update-utmp systemd-update-utmp-runlevel \
    systemd-pcrphase systemd-pcrphase-sysinit ldconfig systemd-journal-catalog-update systemd-update-done \
    systemd-binfmt systemd-hwdb-update systemd-sysusers; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
for unit in getty.target systemd-udevd-control.socket systemd-udevd-kernel.socket fstrim.timer apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../show.service "$root/etc/systemd/system/multi-user.target.wants/show.service"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
mkfs.ext4 -q -d "$root" "$scratch/disk" 1G

# The kernel's drivers for the disk are modules, in this order.
initrd=$scratch/initrd
mkdir -p "$initrd"/{bin,proc,dev,root}
cp "$(command -v busybox)" "$initrd/bin/busybox"
names=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk)
for name in "${names[@]}"; do find "$modules" -name "$name.ko" -exec cp {} "$initrd" \;; done
cat >"$initrd/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for name in ${names[*]}; do /bin/busybox insmod /\$name.ko; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod +x "$initrd/init"
(cd "$initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initrd.gz"

boot() {
    timeout 600 qemu-system-x86_64 -accel tcg -m 1024 -smp 2 -kernel "$kernel" -initrd "$scratch/initrd.gz" \
        -drive "file=$scratch/disk,format=raw,if=virtio" \
        -append 'console=ttyS0 quiet panic=-1 root=/dev/vda rw systemd.show_status=false' \
        -nographic -no-reboot | sed -u 's|\r||g' | tee "$scratch/out-$1"
}
for number in 1 2 3; do boot $number; done
cat "$scratch"/out-? >"$scratch/out"

grep -q 'NOT:' "$scratch/out" && { echo 'not as it should be' >&2; exit 1; }
expected=(
    'boot 1 ok: nothing is wrong with the units'
    'boot 1 ok: started means that it answers'
    'boot 1 ok: the first command starts the daemon'
    'boot 1 ok: groups are in force in full'
    'boot 1 ok: memory is limited'
    'boot 1 ok: agents lie below /toka.slice'
    'boot 1 ok: the agents of a killed daemon are the same'
    'boot 1 ok: nothing was started twice after a kill'
    'boot 1 ok: after a reload the agents are the same'
    'boot 1 ok: systemd starts another in the place of one that hangs'
    'boot 1 ok: the agents of a daemon that hung are the same'
    'boot 1 ok: after a restart all run again'
    'boot 1 ok: a stop leaves no groups'
    'boot 1 ok: after a start all run again'
    'boot 1 ok: one is stopped and one is paused'
    'boot 2 ok: it has started by itself'
    'boot 2 ok: what ran runs again'
    'boot 2 ok: four have begun another life'
    'boot 2 ok: the journal has no gaps'
    'boot 2 ok: the next daemon begins them anew'
    'boot 3 ok: what ran runs again'
    'boot 3 ok: four have begun another life'
    'boot 3 ok: the journal has no gaps'
    'boot 3 ok: there is one tree of groups'
    'boot 3 ok: what was brought down stays down'
    'boot 3 ok: no groups are left'
    'boot 3 ok: no sockets are left'
    'boot 3 ok: no unit has failed'
)
for line in "${expected[@]}"; do
    grep -qF "$line" "$scratch/out" || { echo "not said: $line" >&2; exit 1; }
done
echo 'all as expected'
