//! Bit reader for H.264 NAL units: removes the emulation prevention and decodes the codes of the
//! fields.
//!
//! Knows nothing of what the fields mean. Every read has a bound, and the end of the data is an
//! error, never a zero.

/// Reason why a field cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The data ends before the field.
    #[error("it ends before {0}")]
    Short(&'static str),
    /// The value of the field is out of range.
    #[error("{field} is {value}, and must be from {least} to {most}")]
    Range { field: &'static str, value: i64, least: i64, most: i64 },
    /// Any other reason, as a sentence.
    #[error("{0}")]
    Rule(&'static str),
}

/// Reads the fields of a payload one after the other.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Position of the next bit.
    at: usize,
    /// Position of the first bit after the fields.
    end: usize,
}

impl<'a> Bits<'a> {
    /// Creates a reader for a complete raw byte sequence payload, which ends with a bit 1 and zeros
    /// (`rbsp_trailing_bits`).
    pub(super) fn of_payload(bytes: &'a [u8]) -> Result<Self, Fault> {
        let last = bytes.iter().rposition(|byte| *byte != 0).ok_or(Fault::Rule("it is empty"))?;
        let end = last * 8 + 7 - bytes[last].trailing_zeros() as usize;
        Ok(Self { bytes: &bytes[..=last], at: 0, end })
    }

    /// Creates a reader for the beginning of a payload.
    pub(super) fn of_beginning(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len() * 8 }
    }

    /// Returns whether there are more fields (`more_rbsp_data`).
    pub(super) fn has_more(&self) -> bool {
        self.at < self.end
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, Fault> {
        if self.at >= self.end {
            return Err(Fault::Short(field));
        }
        let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// Reads an unsigned number of `count` bits, at most 32: `u(n)`.
    pub(super) fn fixed(&mut self, count: u32, field: &'static str) -> Result<u32, Fault> {
        (0..count).try_fold(0, |value, _| Ok(value << 1 | u32::from(self.flag(field)?)))
    }

    /// Reads an Exp-Golomb code (H.264 9.1) of at most 31 leading zeros: `ue(v)` without another
    /// bound.
    fn golomb(&mut self, field: &'static str) -> Result<u32, Fault> {
        let mut zeros = 0;
        while !self.flag(field)? {
            zeros += 1;
            if zeros > 31 {
                return Err(Fault::Rule("a number has more than 32 bits"));
            }
        }
        Ok((1_u32 << zeros) - 1 + self.fixed(zeros, field)?)
    }

    /// Reads an unsigned number from 0 to `most`: `ue(v)`.
    pub(super) fn unsigned(&mut self, most: u32, field: &'static str) -> Result<u32, Fault> {
        let value = self.golomb(field)?;
        if value <= most { Ok(value) } else { Err(Fault::Range { field, value: value.into(), least: 0, most: most.into() }) }
    }

    /// Skips an unsigned number of any size, which is not used.
    pub(super) fn skip_unsigned(&mut self, field: &'static str) -> Result<(), Fault> {
        self.golomb(field).map(drop)
    }

    /// Reads a signed number from `least` to `most`: `se(v)`.
    pub(super) fn signed(&mut self, least: i32, most: i32, field: &'static str) -> Result<i32, Fault> {
        let code = i64::from(self.golomb(field)?);
        let value = if code % 2 == 1 { code / 2 + 1 } else { -(code / 2) };
        match i32::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            _ => Err(Fault::Range { field, value, least: least.into(), most: most.into() }),
        }
    }
}

/// Writes the payload of a NAL unit without its emulation prevention bytes (H.264 7.4.1) to
/// `payload`, until that is full. Returns the number of bytes written.
pub(super) fn unescape(unit: &[u8], payload: &mut [u8]) -> Result<usize, Fault> {
    let (mut written, mut zeros) = (0, 0);
    let mut bytes = unit.iter().peekable();
    while let Some(byte) = bytes.next() {
        if written == payload.len() {
            break;
        }
        if zeros >= 2 {
            // Forbidden sequences are refused, because libraries differ in how they read them.
            match *byte {
                3 if bytes.peek().is_none_or(|next| **next <= 3) => {
                    zeros = 0;
                    continue;
                }
                ..=3 => return Err(Fault::Rule("its bytes have a sequence that must not occur in a NAL unit")),
                _ => {}
            }
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        payload[written] = *byte;
        written += 1;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(unit: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut payload = [0; 16];
        unescape(unit, &mut payload).map(|length| payload[..length].to_vec())
    }

    #[test]
    fn emulation_prevention_is_taken_out_and_nothing_else() {
        assert_eq!(unescaped(&[1, 0, 0, 3, 1, 3, 0, 0, 3, 0, 0, 3]).unwrap(), [1, 0, 0, 1, 3, 0, 0, 0, 0]);
        assert_eq!(unescaped(&[0, 0, 4, 3]).unwrap(), [0, 0, 4, 3]);
        for forbidden in [&[0, 0, 3, 4][..], &[7, 0, 0, 2], &[0, 0, 0, 1]] {
            assert!(unescaped(forbidden).is_err(), "{forbidden:?}");
        }
        assert_eq!(unescaped(&[9; 40]).unwrap().len(), 16);
    }

    #[test]
    fn numbers_are_read_with_their_bounds() {
        // The codes are 1, 010, 011, 00100, 00101, then the stop bit.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1100_0000];
        let mut bits = Bits::of_payload(&bytes).unwrap();
        let read: Vec<_> = (0..5).map(|_| bits.unsigned(4, "n").unwrap()).collect();
        assert_eq!((read, bits.has_more()), (vec![0, 1, 2, 3, 4], false));
        assert_eq!(bits.flag("f"), Err(Fault::Short("f")));
        let mut bits = Bits::of_payload(&bytes).unwrap();
        let read: Vec<_> = (0..5).map(|_| bits.signed(-2, 2, "n").unwrap()).collect();
        assert_eq!(read, [0, 1, -1, 2, -2]);
        let mut bits = Bits::of_payload(&[0b0010_0110]).unwrap();
        assert_eq!(bits.unsigned(2, "n"), Err(Fault::Range { field: "n", value: 3, least: 0, most: 2 }));
    }

    #[test]
    fn numbers_without_end_are_refused() {
        assert!(Bits::of_payload(&[0, 0]).is_err() && Bits::of_payload(&[]).is_err());
        let longest = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Bits::of_beginning(&longest).golomb("n"), Ok(u32::MAX - 1));
        assert_eq!(
            Bits::of_beginning(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]).golomb("n"),
            Err(Fault::Rule("a number has more than 32 bits"))
        );
        assert_eq!(Bits::of_beginning(&[0, 0]).golomb("n"), Err(Fault::Short("n")));
    }
}
