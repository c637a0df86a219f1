//! Bytes as lower hexadecimal, the form of every digest and id in files and on hosts.

use std::fmt::Write as _;

/// Two lower hexadecimal digits for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits of either case; `None` for anything else.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The SHA-256 digest (FIPS 180-4) of the bytes in lower hexadecimal, 64 digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sha256_of_abc_is_the_fips_vector() {
        assert_eq!(
            super::sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn digits_become_bytes_and_nothing_else_does() {
        assert_eq!(super::decode("00fFa5").unwrap(), [0, 255, 0xa5]);
        assert_eq!(super::decode("").unwrap(), [0_u8; 0]);
        for wrong in ["0", "0x00", "0g", "é", " 00", "+1"] {
            assert_eq!(super::decode(wrong), None, "{wrong}");
        }
    }
}
