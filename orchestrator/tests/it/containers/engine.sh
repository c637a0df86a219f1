#!/bin/sh
# Runs a Docker Engine in namespaces of its own until standard input ends; then nothing of it is left.
#
#   engine.sh DIR CGROUP [ENGINE'S ARGUMENTS]
#
# Whoever holds the other end of standard input need not tidy up, also when it is killed: the first
# process of the PID namespace ends at the end of its input, and the kernel then ends the Engine, its
# containerd, its shims and its containers. Mounts and network interfaces go with their namespaces.
set -eu
dir=$1
cgroup=$2
shift 2

# Processes: PID 1 below. Mounts: nothing is seen outside. Network: the bridge is ours alone.
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --pid --fork --mount --mount-proc --net sh -c '
    set -eu
    dir=$1
    cgroup=$2
    shift 2
    # What the Engine and containerd write outside of their folders, and the settings of this machine.
    mount -t tmpfs -o mode=755 engine /run
    mkdir -p /etc/docker
    mount -t tmpfs -o mode=755 engine /etc/docker
    busybox ip link set lo up
    {
        dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
            --host "unix://$dir/docker.sock" --group docker \
            --iptables=false --ip6tables=false --userland-proxy=false \
            --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$cgroup" "$@" </dev/null || true
        echo "engine.sh: dockerd has ended" >&2
    } &
    cat >/dev/null
' engine "$dir" "$cgroup" "$@" || true

find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
rm -rf --one-file-system "$dir"
