# Boots a systemd: sh boot.sh DIR BUILT SYSTEMD, as the first process of a PID namespace,
# with mounts, a network and a control group of its own. The new host has this
# one's programs, the /etc that is DIR/etc, and DIR and BUILT where they are.
set -e
dir=$1 built=$2 systemd=$3
mount --make-rprivate /
mkdir -p "$dir/root"
mount -t tmpfs -o mode=755 none "$dir/root"
cd "$dir/root"
mkdir -p proc sys dev run tmp usr etc var/log var/lib/moult old ".$dir" ".$built"
mount --bind "$dir/etc" etc
mount --bind "$dir/state" var/lib/moult
mount --bind "$dir" ".$dir"
mount --bind "$built" ".$built"
for place in usr bin sbin lib lib32 lib64 libx32; do
	if [ -L "/$place" ]; then
		cp -d "/$place" .
	elif [ -d "/$place" ]; then
		mkdir -p "$place"
		mount --bind "/$place" "$place"
		mount -o remount,bind,ro "$place"
	fi
done
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mount -t tmpfs -o mode=755 none run
for device in null zero full random urandom tty; do
	: >"dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/shm
ln -s /proc/self/fd dev/fd
chmod 1777 tmp dev/shm
pivot_root . old
umount -l /old
rmdir /old
# container: what systemd leaves to who has started it. Units are looked for in
# one directory alone, and nobody generates any.
exec env -i container=moult PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	SYSTEMD_UNIT_PATH=/etc/units SYSTEMD_GENERATOR_PATH=/etc/none \
	"$systemd" --system --unit=test.target --log-target=console --show-status=0
