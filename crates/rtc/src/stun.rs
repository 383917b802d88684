//! The user name in a STUN message (RFC 8489). It tells which session a datagram is for while its
//! sender is unknown.
//!
//! The WebRTC library parses the message, too, but does not make the user name public.

/// Length of the message header, bytes.
const HEADER_BYTES: usize = 20;
/// Type of the attribute USERNAME.
const USERNAME: u16 = 0x0006;

/// Returns whether a datagram is a STUN message. RFC 7983: protocols that share a port differ in
/// their first byte.
pub fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| *byte < 4)
}

/// Returns the ICE user fragment of the receiver, which stands before the colon of USERNAME (RFC
/// 8445 §7.2.2). It is not authenticated: the session with this user fragment checks the message
/// integrity.
pub fn receiver(bytes: &[u8]) -> Option<&str> {
    let mut attributes = bytes.get(HEADER_BYTES..)?;
    while let [kind_high, kind_low, length_high, length_low, rest @ ..] = attributes {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let value = rest.get(..length)?;
        if u16::from_be_bytes([*kind_high, *kind_low]) == USERNAME {
            return Some(std::str::from_utf8(value).ok()?.split_once(':')?.0);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    /// Returns a binding request with a software attribute of five bytes before its user name.
    fn request(user: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        bytes.extend([7; 12]);
        bytes.extend([0x80, 0x22, 0, 5, b'n', b'a', b'm', b'e', b's', 0, 0, 0]);
        bytes.extend([0, 6, 0, user.len() as u8]);
        bytes.extend(user);
        bytes
    }

    #[test]
    fn receiver_stands_before_the_colon() {
        assert_eq!(receiver(&request(b"here:there")), Some("here"));
        assert_eq!(receiver(&request(b"nobody")), None);
        assert_eq!(receiver(&request(b"")), None);
        assert_eq!(receiver(&request(&[0xff, b':', b'a'])), None);
    }

    #[test]
    fn noise_has_no_receiver_and_does_no_harm() {
        let mut random = SmallRng::seed_from_u64(5);
        let whole = request(b"here:there");
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            bytes.truncate(random.random_range(0..=bytes.len()));
            if random.random_bool(0.5) {
                random.fill_bytes(&mut bytes);
            }
            _ = receiver(&bytes);
        }
    }
}
