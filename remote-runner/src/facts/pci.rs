//! NVIDIA display devices on the PCI bus, from sysfs: they are there with or without a driver.

use std::fs;
use std::io;
use std::path::Path;

use runner_protocol::facts::{MAX_GPUS, PciGpu};

use super::root::{self, Root};

/// NVIDIA's vendor id.
const VENDOR: &str = "0x10de";

/// The class of display controllers: VGA 0x0300, 3D 0x0302. NVSwitches are bridges, 0x0680.
const DISPLAY_CLASS: &str = "0x03";

/// The devices, by address.
///
/// # Errors
///
/// The folder cannot be read; `NotFound` on a host without PCI.
pub(super) fn gpus(root: &Root) -> io::Result<Vec<PciGpu>> {
    let mut gpus: Vec<PciGpu> = fs::read_dir(root.path("/sys/bus/pci/devices"))?
        .flatten()
        .filter_map(|entry| gpu(&entry.path()))
        .take(MAX_GPUS)
        .collect();
    gpus.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(gpus)
}

fn gpu(folder: &Path) -> Option<PciGpu> {
    let value = |name: &str| root::read(&folder.join(name)).ok().map(|text| text.trim().to_owned());
    if value("vendor")? != VENDOR || !value("class")?.starts_with(DISPLAY_CLASS) {
        return None;
    }
    // A link that is down or gone reads as 0, 63 or 255 lanes.
    let lanes = |name| value(name)?.parse().ok().filter(|lanes| (1..=32).contains(lanes));
    let driver = fs::read_link(folder.join("driver")).ok();
    Some(PciGpu {
        address: folder.file_name()?.to_str()?.to_ascii_lowercase(),
        device_id: value("device").unwrap_or_default(),
        kernel_driver: driver
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
        link_width: lanes("current_link_width"),
        link_width_max: lanes("max_link_width"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;
    use super::*;

    #[test]
    fn display_devices_of_nvidia_with_their_driver() {
        let (_folder, root) = tree(&[
            ("/sys/bus/pci/devices/0000:ab:00.0/vendor", "0x10de\n"),
            ("/sys/bus/pci/devices/0000:ab:00.0/class", "0x030200\n"),
            ("/sys/bus/pci/devices/0000:ab:00.0/device", "0x2330\n"),
            ("/sys/bus/pci/devices/0000:ab:00.0/current_link_width", "8\n"),
            ("/sys/bus/pci/devices/0000:ab:00.0/max_link_width", "16\n"),
            ("/sys/bus/pci/devices/0000:3b:00.0/vendor", "0x10de\n"),
            ("/sys/bus/pci/devices/0000:3b:00.0/class", "0x030000\n"),
            ("/sys/bus/pci/devices/0000:3b:00.0/device", "0x1eb8\n"),
            ("/sys/bus/pci/devices/0000:3b:00.0/current_link_width", "255\n"),
            ("/sys/bus/pci/devices/0000:05:00.0/vendor", "0x10de\n"),
            ("/sys/bus/pci/devices/0000:05:00.0/class", "0x068000\n"),
            ("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"),
            ("/sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n"),
        ]);
        let drivers = "/sys/bus/pci/drivers/nvidia";
        fs::create_dir_all(root.path(drivers)).unwrap();
        let link = root.path("/sys/bus/pci/devices/0000:ab:00.0/driver");
        std::os::unix::fs::symlink("../../drivers/nvidia", link).unwrap();

        let gpus = gpus(&root).unwrap();
        assert_eq!(gpus.len(), 2);
        assert_eq!((gpus[0].address.as_str(), gpus[0].link_width), ("0000:3b:00.0", None));
        assert_eq!(gpus[0].kernel_driver, None);
        assert_eq!((gpus[1].address.as_str(), gpus[1].link_width), ("0000:ab:00.0", Some(8)));
        assert_eq!(gpus[1].link_width_max, Some(16));
        assert_eq!(gpus[1].kernel_driver.as_deref(), Some("nvidia"));
    }

    #[test]
    fn a_host_without_pci_has_none() {
        let (_folder, root) = tree(&[]);
        assert_eq!(gpus(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
