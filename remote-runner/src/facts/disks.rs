//! File systems that hold data, from `/proc/self/mountinfo` (proc(5)) and statvfs(3).

use std::time::Duration;

use runner_protocol::facts::{DiskFacts, MAX_DISKS};

use super::Problems;
use super::root::Root;
use crate::deadline::within;

/// How long one file system may take to answer. A network mount whose server is gone never does.
const STAT_DEADLINE: Duration = Duration::from_secs(2);

/// How many file systems may miss their deadline before the rest is not asked.
const MAX_STALLED: usize = 3;

/// File systems of the kernel, of programs, or of read-only images: none of them holds data that
/// may run out.
const NO_DATA: [&str; 31] = [
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Reads the mounts and asks each file system.
pub(super) fn read(root: &Root, problems: &mut Problems) -> Vec<DiskFacts> {
    let text = problems.of("/proc/self/mountinfo", root.read("/proc/self/mountinfo"));
    let mut disks = Vec::new();
    let mut stalled = 0;
    for mount in mounts(&text).into_iter().take(MAX_DISKS) {
        let path = root.path(&mount.mount);
        if stalled == MAX_STALLED {
            problems.add(&mount.mount, &"not asked, since other file systems do not answer");
            continue;
        }
        match within(STAT_DEADLINE, move || rustix::fs::statvfs(&path)) {
            Some(Ok(stat)) => {
                let has_inodes = stat.f_files > 0;
                disks.push(DiskFacts {
                    total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                    free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                    inodes_total: has_inodes.then_some(stat.f_files),
                    inodes_free: has_inodes.then_some(stat.f_favail),
                    ..mount
                });
            }
            Some(Err(error)) => problems.add(&mount.mount, &error),
            None => {
                stalled = stalled.saturating_add(1);
                problems.add(&mount.mount, &"the file system does not answer");
            }
        }
    }
    disks
}

/// The mounts that hold data, each device once: at its own root if it is mounted there, and at the
/// shortest path otherwise.
fn mounts(text: &str) -> Vec<DiskFacts> {
    let mut found: Vec<(&str, bool, DiskFacts)> = Vec::new();
    for (device, whole, disk) in text.lines().filter_map(mount) {
        let rank = |whole: bool, disk: &DiskFacts| (!whole, disk.mount.len());
        match found.iter_mut().find(|(known, ..)| *known == device) {
            Some((_, known_whole, known)) => {
                if rank(whole, &disk) < rank(*known_whole, known) {
                    (*known_whole, *known) = (whole, disk);
                }
            }
            None => found.push((device, whole, disk)),
        }
    }
    found.into_iter().map(|(.., disk)| disk).collect()
}

/// One line: the device's number, whether the device's root is what is mounted, and the mount.
fn mount(line: &str) -> Option<(&str, bool, DiskFacts)> {
    let (fixed, rest) = line.split_once(" - ")?;
    let mut fixed = fixed.split(' ').skip(2);
    let (device, root) = (fixed.next()?, fixed.next()?);
    let mount = unescape(fixed.next()?);
    let options = fixed.next()?;
    let mut rest = rest.split(' ');
    let (fs, source) = (rest.next()?, rest.next()?);
    let super_options = rest.next().unwrap_or_default();
    // A container's own root is an overlay; elsewhere overlays are images of containers.
    if NO_DATA.contains(&fs) || (fs == "overlay" && mount != "/") {
        return None;
    }
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let disk = DiskFacts {
        mount,
        device: unescape(source),
        fs: fs.to_owned(),
        read_only: read_only(options) || read_only(super_options),
        ..DiskFacts::default()
    };
    Some((device, root == "/", disk))
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (digits, part.get(3..)) {
            (Some(byte), Some(rest)) if byte.is_ascii() => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a GPU host with Docker, a snap, a bind mount and a network mount.
    const MOUNTINFO: &str = "\
23 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
24 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:2 - sysfs sysfs rw
40 30 259:2 /var/lib/data /data/bind rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
30 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
41 30 259:1 / /boot/efi ro,relatime shared:30 - vfat /dev/nvme0n1p1 rw,fmask=0077
50 30 7:1 / /snap/core22/1 ro,nodev,relatime shared:40 - squashfs /dev/loop1 ro
60 30 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw,lowerdir=/x
70 30 0:60 / /mnt/big\\040disk rw,relatime shared:70 master:1 - nfs4 10.0.0.9:/big\\134x rw,vers=4.2
80 30 0:70 / /mnt/broken rw - xfs /dev/sdb1 ro,attr2
";

    #[test]
    fn data_file_systems_each_once() {
        let disks = mounts(MOUNTINFO);
        let seen: Vec<_> = disks
            .iter()
            .map(|disk| {
                (disk.mount.as_str(), disk.device.as_str(), disk.fs.as_str(), disk.read_only)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("/", "/dev/nvme0n1p2", "ext4", false),
                ("/boot/efi", "/dev/nvme0n1p1", "vfat", true),
                ("/mnt/big disk", "10.0.0.9:/big\\x", "nfs4", false),
                ("/mnt/broken", "/dev/sdb1", "xfs", true),
            ]
        );
    }

    #[test]
    fn the_root_of_a_container_is_an_overlay() {
        let disks = mounts("1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/x\n");
        assert_eq!(disks.len(), 1);
    }

    #[test]
    fn lines_that_are_cut_are_passed_over() {
        for end in 0..MOUNTINFO.len() {
            let _ = mounts(&MOUNTINFO[..end]);
        }
        assert_eq!(mounts("x\n - \n1 2 3\n"), []);
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("a\\99b\\400"), "a\\99b\\400");
    }

    #[test]
    fn the_file_system_of_a_mount_is_asked() {
        let text = "30 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n\
                    31 1 259:3 / /missing rw - ext4 /dev/nvme0n1p3 rw\n";
        let (_folder, root) = super::super::root::tests::tree(&[("/proc/self/mountinfo", text)]);
        let mut problems = Problems(Vec::new());
        let disks = read(&root, &mut problems);
        assert_eq!(disks.len(), 1);
        assert!(disks[0].total_bytes > 0 && disks[0].free_bytes <= disks[0].total_bytes);
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].source, "/missing");
    }
}
