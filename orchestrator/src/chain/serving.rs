//! The address under which an axon is announced, and which addresses make sense.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The protocol number that Bittensor's own software announces.
const PROTOCOL: u8 = 4;

/// The longest certificate that the runtime takes: an algorithm and a public key of 64 bytes.
const MAX_CERTIFICATE_BYTES: usize = 65;

/// Where validators shall reach the axon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxonAddress {
    ip: IpAddr,
    port: u16,
    certificate: Option<Vec<u8>>,
}

/// Why an address cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableAddress {
    /// No address of a machine.
    #[error("{ip} is {kind}: the runtime refuses it")]
    Impossible {
        /// The address.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// Not reachable from outside.
    #[error("{ip} is {kind}: the validators of a public network cannot reach it")]
    Private {
        /// The address.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// Port 0.
    #[error("port 0 cannot be reached")]
    Port,
    /// Not a certificate.
    #[error(
        "a certificate has an algorithm and a key, 2 to {MAX_CERTIFICATE_BYTES} bytes, not {0}"
    )]
    Certificate(usize),
}

impl AxonAddress {
    /// An address that the runtime takes. An IPv4 address written as IPv6 is taken for what it is.
    ///
    /// # Errors
    /// [`UnusableAddress`].
    pub fn new(ip: IpAddr, port: u16) -> Result<Self, UnusableAddress> {
        let ip = ip.to_canonical();
        if let Some(kind) = impossible(ip) {
            return Err(UnusableAddress::Impossible { ip, kind });
        }
        if port == 0 {
            return Err(UnusableAddress::Port);
        }
        Ok(Self { ip, port, certificate: None })
    }

    /// Announces the public key of the axon's TLS certificate, too: the algorithm, then the key.
    ///
    /// # Errors
    /// [`UnusableAddress::Certificate`].
    pub fn with_certificate(self, certificate: Vec<u8>) -> Result<Self, UnusableAddress> {
        match certificate.len() {
            2..=MAX_CERTIFICATE_BYTES => Ok(Self { certificate: Some(certificate), ..self }),
            other => Err(UnusableAddress::Certificate(other)),
        }
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// The protocol number that is announced.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        PROTOCOL
    }

    /// Whether strangers can reach it.
    ///
    /// # Errors
    /// [`UnusableAddress::Private`], which says why not.
    pub fn check_public(&self) -> Result<(), UnusableAddress> {
        match private(self.ip) {
            Some(kind) => Err(UnusableAddress::Private { ip: self.ip, kind }),
            None => Ok(()),
        }
    }

    /// The address as the runtime keeps it: an IPv4 address in the low 32 bits.
    pub(super) fn ip_number(&self) -> u128 {
        match self.ip {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => ip.to_bits(),
        }
    }

    /// 4 or 6.
    pub(super) fn ip_type(&self) -> u8 {
        if self.ip.is_ipv4() { 4 } else { 6 }
    }
}

impl fmt::Display for AxonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// What no machine is reached at, anywhere.
fn impossible(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        return Some("the unspecified address");
    }
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    if ip.is_multicast() {
        return Some("a multicast address");
    }
    match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(ip) if ip.octets().first() == Some(&0) => Some("an address of no network"),
        _ => None,
    }
}

/// What is not reached from the internet (RFC 6890).
fn private(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => private_v4(ip),
        IpAddr::V6(ip) => private_v6(ip),
    }
}

fn private_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        _ if ip.is_private() => Some("a private address"),
        _ if ip.is_link_local() => Some("a link-local address"),
        _ if ip.is_documentation() => Some("an address for documentation"),
        [100, 64..=127, ..] => Some("an address behind a carrier's NAT"),
        [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn private_v6(ip: Ipv6Addr) -> Option<&'static str> {
    match ip.segments() {
        _ if ip.is_unique_local() => Some("a private address"),
        _ if ip.is_unicast_link_local() => Some("a link-local address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("an address for documentation"),
        [0x2000..=0x3fff, ..] => None,
        // All that is routed is in 2000::/3.
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str) -> Result<AxonAddress, UnusableAddress> {
        AxonAddress::new(ip.parse().unwrap(), 8091)
    }

    #[test]
    fn addresses_of_no_machine_are_refused() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
        ] {
            let refused = address(ip);
            assert!(
                matches!(refused, Err(UnusableAddress::Impossible { .. })),
                "{ip}: {refused:?}"
            );
        }
        let port = AxonAddress::new("8.8.8.8".parse().unwrap(), 0);
        assert_eq!(port, Err(UnusableAddress::Port));
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for ip in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "240.0.0.1",
            "fd00::1",
            "fe80::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::1",
        ] {
            assert!(address(ip).unwrap().check_public().is_err(), "{ip}");
        }
        for ip in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111"] {
            assert_eq!(address(ip).unwrap().check_public(), Ok(()), "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_announced_as_ipv4() {
        let mapped = address("::ffff:8.8.4.4").unwrap();
        assert_eq!((mapped.ip_type(), mapped.ip_number()), (4, 0x0808_0404));
        assert_eq!(mapped.to_string(), "8.8.4.4:8091");
        let v6 = address("2606:4700::1111").unwrap();
        assert_eq!((v6.ip_type(), v6.ip_number()), (6, 0x2606_4700 << 96 | 0x1111));
    }

    #[test]
    fn a_certificate_has_a_length() {
        for (length, fits) in [(0, false), (1, false), (2, true), (65, true), (66, false)] {
            let given = address("8.8.8.8").unwrap().with_certificate(vec![1; length]);
            assert_eq!(given.is_ok(), fits, "{length}");
        }
    }
}
