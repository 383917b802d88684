//! The RTP header extension `color-space`, by which browsers name the colours of a video.
//! <https://webrtc.googlesource.com/src/+/refs/heads/main/docs/native-code/rtp-hdrext/color-space>
//!
//! The WebRTC library knows the name of the extension, and neither reads its value nor lets another
//! reader have it. So the library sees it under another name, which it does not know.

use ooblex_codec::ColourSpace;
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

const NAME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
const NAME_FOR_LIBRARY: &str = "urn:ooblex:color-space";

/// Identifier of the extension, which the library's own extensions leave free. If the browser offers
/// another number, that one is used.
pub(crate) const ID: u8 = 8;

/// The colours that a frame names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedColours(pub(crate) ColourSpace);

/// Returns an offer in which the extension has the name for the library.
pub(crate) fn renamed(offer: &str) -> String {
    offer.replace(NAME, NAME_FOR_LIBRARY)
}

/// Returns an answer of the library in which the extension has its own name.
pub(crate) fn named(answer: &str) -> String {
    answer.replace(NAME_FOR_LIBRARY, NAME)
}

/// Returns the extension for the configuration of the library.
pub(crate) fn extension() -> Extension {
    Extension::with_serializer(NAME_FOR_LIBRARY, Reader)
}

/// Reads the extension. It is never sent: all video that is sent has the colours that receivers
/// assume where none are named (VP8), or names them in the bitstream (H.264).
#[derive(Debug)]
struct Reader;

impl ExtensionSerializer for Reader {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, value: &[u8], values: &mut ExtensionValues) -> bool {
        let colours = read(value);
        if let Some(colours) = colours {
            values.user_values.set(NamedColours(colours));
        }
        colours.is_some()
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// Reads a value: primaries, transfer characteristics and matrix as code points of ITU-T H.273, then
/// the range and the positions of chroma; metadata of HDR may follow. Returns `None` for one that
/// names neither range nor matrix.
pub fn read(value: &[u8]) -> Option<ColourSpace> {
    const UNSPECIFIED: u8 = 2;
    let [_, _, matrix, range_and_positions, ..] = *value else { return None };
    match range_and_positions >> 4 & 3 {
        0 if matrix == UNSPECIFIED => None,
        range => Some(ColourSpace::from_code_points(matrix, range == 2)),
    }
}

#[cfg(test)]
mod tests {
    use ooblex_codec::{ColourMatrix, ColourRange};

    use super::*;

    #[test]
    fn range_and_matrix_are_read_and_what_names_nothing_is_ignored() {
        let space = |range, matrix| Some(ColourSpace { range, matrix });
        for (value, expected) in [
            // A canvas of Chromium.
            (&[1, 13, 1, 0x20][..], space(ColourRange::Full, ColourMatrix::Bt709)),
            (&[6, 6, 6, 0x10], space(ColourRange::Limited, ColourMatrix::Bt601)),
            (
                &[9, 16, 9, 0x15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
                space(ColourRange::Limited, ColourMatrix::Bt2020),
            ),
            (&[2, 2, 2, 0x20], space(ColourRange::Full, ColourMatrix::Bt601)),
            (&[2, 2, 1, 0x00], space(ColourRange::Limited, ColourMatrix::Bt709)),
            (&[2, 2, 2, 0x00], None),
            (&[1, 13, 1], None),
            (&[], None),
        ] {
            assert_eq!(read(value), expected, "{value:?}");
        }
    }
}
