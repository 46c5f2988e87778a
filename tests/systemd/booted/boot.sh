#!/bin/bash
# The first process of a machine for one test run: lays out its file systems, then becomes systemd.
#   boot.sh ROOT SHARE    in fresh pid, mount, cgroup, uts, ipc and network namespaces, as root
# ROOT is an empty folder to mount on. "/" of the host is seen, every change stays in memory and is
# gone with the machine. SHARE is a folder of the host, seen as /run/share, for what goes in and out.
set -euo pipefail
base=$1 share=$2 root=$1/merged

mount --make-rprivate /
mount -t tmpfs -o mode=755,size=4g tmpfs "$base"
mkdir "$base"/{upper,work,merged}
chmod 755 "$base"/{upper,merged}
mount -t overlay -o lowerdir=/,upperdir="$base/upper",workdir="$base/work" overlay "$root"

# What the kernel shows, as a container gets to see it: /sys and the switches of /proc read-only.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mkdir -p "$root/run/share" "$root/run/systemd/system"
mount --bind "$share" "$root/run/share"

# A small boot: journald, sysusers and tmpfiles, and nothing that looks for hardware or a network.
for unit in systemd-{udevd,udev-trigger,logind,timesyncd,networkd,resolved,hwdb-update,modules-load}.service \
    systemd-{sysctl,random-seed,remount-fs,pstore,binfmt,journal-catalog-update,update-utmp}.service \
    systemd-{firstboot,machine-id-commit}.service systemd-udevd-{control,kernel}.socket \
    systemd-ask-password-{console,wall}.path proc-sys-fs-binfmt_misc.automount \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-{debug,tracing,config}.mount \
    sys-fs-fuse-connections.mount ldconfig.service kmod-static-nodes.service \
    getty.target timers.target; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cat >"$root/run/systemd/system/test-boot.target" <<END
[Unit]
Description=Enough to run a service
Requires=basic.target
After=basic.target
AllowIsolate=yes
END
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/test.conf"
: >"$root/etc/fstab"
echo syncd-test >"$root/etc/hostname"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
ip link set lo up

cd "$root"
mkdir -p run/host
pivot_root . run/host
cd /
umount -l /run/host
rmdir /run/host
# Left to the container by systemd; without it credentials end up in an unreadable plain folder.
mount --make-rshared /
exec env -i container=syncd-test LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=test-boot.target --show-status=no \
    --log-target=journal-or-kmsg
