//! The line of a grant in `authorized_keys`.

use std::fmt;
use std::net::IpAddr;

use super::PublicKey;

/// Why a text is no address that a grant may be limited to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP address or network such as 203.0.113.7 or 203.0.113.0/24")]
pub struct InvalidFrom(pub String);

/// Where a validator may log in from: an address or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromAddress {
    address: IpAddr,
    prefix: u8,
}

impl FromAddress {
    /// Reads an address or a network. Host bits of a network must be zero, as sshd wants them.
    ///
    /// # Errors
    /// [`InvalidFrom`]; the whole Internet is no limit and so an error.
    pub fn parse(text: &str) -> Result<Self, InvalidFrom> {
        let wrong = || InvalidFrom(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        // sshd knows a client of an IPv4 address by that address.
        let address = address.to_canonical();
        let (bits, value) = match address {
            IpAddr::V4(v4) => (32, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let prefix = match prefix {
            None => bits,
            Some(text) => text.parse().ok().filter(|n| (1..=bits).contains(n)).ok_or_else(wrong)?,
        };
        let host_bits = value.checked_shl(u32::from(prefix)).unwrap_or(0);
        if host_bits != 0 || address.is_unspecified() {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl From<IpAddr> for FromAddress {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for FromAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == whole {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// The version of a host's OpenSSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshdVersion(pub u16, pub u16);

impl SshdVersion {
    /// The first with `expiry-time` in `authorized_keys`.
    pub const EXPIRY: Self = Self(7, 7);
    /// The first that reads such a time as UTC when it ends in `Z`.
    pub const UTC: Self = Self(9, 1);

    /// Finds `OpenSSH_9.2p1` in what `ssh -V` says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.split("OpenSSH_").nth(1)?;
        // OpenSSH_for_Windows and the like name their version differently.
        let (major, rest) = rest.split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// When a grant ends, as this host's sshd reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Seconds since the Unix epoch.
    pub at_secs: i64,
    /// `YYYYMMDDHHMMSS` with a `Z`, or in the host's own time zone for an sshd before 9.1.
    pub written: String,
}

impl Expiry {
    /// The expiry for a host. `local` is what the host says that time is on its own clock face,
    /// used only where its sshd knows no UTC.
    #[must_use]
    pub fn for_host(at_secs: i64, version: Option<SshdVersion>, local: &str) -> Option<Self> {
        let written = match version {
            Some(version) if version < SshdVersion::EXPIRY => return None,
            Some(version) if version < SshdVersion::UTC => {
                let digits = local.len() == 14 && local.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| local.to_owned())?
            }
            // One that does not say its version is taken for a recent one: an older one would
            // refuse the line, and so the login.
            _ => {
                let at = jiff::Timestamp::from_second(at_secs).ok()?;
                at.strftime("%Y%m%d%H%M%SZ").to_string()
            }
        };
        Some(Self { at_secs, written })
    }
}

/// What runs instead of the command or shell that a granted session asks for. It looks whether the
/// grant still stands, leaves its id in the environment, by which the session is found and ended,
/// and becomes what was asked for. `$0` is the grant's id, `$1` its end, `$2` the file.
///
/// sshd checks `expiry-time` at login only, and a connection may open sessions for as long as it
/// lasts: this is asked at each of them. It holds no secret and no lock: who has a shell on the
/// account could do anything to it (docs/grants.md).
const WRAPPER: &str = "\
[ $(date +%s) -lt $1 ] && grep -q orch:$0 $2 || { echo This grant has ended. >&2; exit 1; }; \
export ORCH_GRANT=$0; \
case $SSH_ORIGINAL_COMMAND in \
internal-sftp*) for s in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec; do \
[ -x $s/sftp-server ] && exec $s/sftp-server; done; exit 1;; esac; \
if [ -n \\\"$SSH_ORIGINAL_COMMAND\\\" ]; then exec ${SHELL:-/bin/sh} -c \\\"$SSH_ORIGINAL_COMMAND\\\"; \
else exec ${SHELL:-/bin/sh} -l; fi";

/// The line of a grant, without a line break. `file` is the `authorized_keys` file on the host;
/// one whose path is not plain cannot be named in the line.
///
/// Every part is of a type whose text has no quote, no blank and no line break.
#[must_use]
pub fn line(
    id: &str,
    key: &PublicKey,
    from: FromAddress,
    expiry: &Expiry,
    file: &str,
) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '@');
    let hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !file.starts_with('/') || !file.chars().all(plain) {
        return None;
    }
    let Expiry { at_secs, written } = expiry;
    Some(format!(
        "restrict,pty,from=\"{from}\",expiry-time=\"{written}\",\
         command=\"exec sh -c '{WRAPPER}' {id} {at_secs} {file}\" {key} orch:{id}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks() {
        for (text, written) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.7/32", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(FromAddress::parse(text).unwrap().to_string(), written);
        }
        for text in [
            "",
            "*",
            "0.0.0.0",
            "0.0.0.0/0",
            "::/0",
            "203.0.113.7/24",
            "host",
            "1.2.3.4,5.6.7.8",
            "1.2.3.4/33",
            "!1.2.3.4",
            "1.2.3.4\"",
            "1.2.3.4 ",
        ] {
            assert!(FromAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions() {
        let parse = SshdVersion::parse;
        assert_eq!(parse("OpenSSH_9.2p1 Debian-2, OpenSSL 3.0"), Some(SshdVersion(9, 2)));
        assert_eq!(parse("OpenSSH_10.0p2"), Some(SshdVersion(10, 0)));
        assert_eq!(parse("Dropbear v2022.83"), None);
    }

    #[test]
    fn an_old_sshd_gets_its_own_time() {
        let expiry = |version, local| {
            Expiry::for_host(1_800_000_000, version, local).map(|expiry| expiry.written)
        };
        let utc = Some("20270115080000Z".to_owned());
        assert_eq!(expiry(Some(SshdVersion(9, 2)), ""), utc);
        assert_eq!(expiry(None, ""), utc);
        let local = "20270115090000";
        assert_eq!(expiry(Some(SshdVersion(8, 9)), local), Some(local.to_owned()));
        assert_eq!(expiry(Some(SshdVersion(8, 9)), "2027\",permitopen"), None);
        assert_eq!(expiry(Some(SshdVersion(7, 6)), local), None);
    }
}
