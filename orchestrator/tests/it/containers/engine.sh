#!/bin/sh
# Runs a container engine in namespaces of its own until standard input ends; then nothing of it is left.
#
#   engine.sh DIR CGROUP docker|podman|rootless-docker [USER]
#
# It listens on DIR/docker.sock, a Podman on DIR/podman/podman.sock. A rootless Docker is USER's.
#
# Whoever holds the other end of standard input need not tidy up, also when it is killed: the first
# process of the PID namespace ends at the end of its input, and the kernel then ends the Engine, its
# containerd, its shims and its containers. Mounts and network interfaces go with their namespaces.
set -eu
dir=$1
cgroup=$2

# Processes: PID 1 below. Mounts: nothing is seen outside. Network: the bridge is ours alone.
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --pid --fork --mount --mount-proc --net sh -c '
    set -eu
    dir=$1
    cgroup=$2
    kind=$3
    user=${4:-}
    # What engines and containerd write outside of their folders, and the settings of this machine.
    mount -t tmpfs -o mode=755 engine /run
    mkdir -p /etc/docker
    mount -t tmpfs -o mode=755 engine /etc/docker
    busybox ip link set lo up
    docker() {
        dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
            --host "unix://$dir/docker.sock" --group docker \
            --iptables=false --ip6tables=false --userland-proxy=false \
            --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$cgroup"
    }
    podman_() {
        # crun works with the one hierarchy or with the other.
        umount /sys/fs/cgroup/unified 2>/dev/null || true
        mkdir "$dir/podman"
        podman --log-level info --root "$dir/data" --runroot "$dir/exec" --storage-driver vfs \
            --cgroup-manager cgroupfs --events-backend file \
            system service --time 0 "unix://$dir/podman/podman.sock"
    }
    rootless_docker() {
        mkdir "/run/$user" "$dir/home"
        chown "$user" "/run/$user" "$dir/home" "$dir"
        # A network of its own would need /dev/net/tun; this one is namespaced already.
        setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups \
            env HOME="$dir/home" XDG_RUNTIME_DIR="/run/$user" \
            DOCKERD_ROOTLESS_ROOTLESSKIT_NET=host DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=none \
            /usr/share/docker.io/contrib/dockerd-rootless.sh --data-root "$dir/home/data" \
            --host "unix://$dir/docker.sock" --iptables=false --ip6tables=false --bridge=none \
            --ip-forward=false
    }
    {
        case $kind in
            docker) docker ;;
            podman) podman_ ;;
            rootless-docker) rootless_docker ;;
        esac </dev/null || true
        echo "engine.sh: the engine has ended" >&2
    } &
    cat >/dev/null
' engine "$@" || true

find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
rm -rf --one-file-system "$dir"
