//! Rotates pictures upright. The caller knows how the sender signals the rotation.

use ooblex_pipeline::I420;

/// Clockwise rotation that turns a picture upright, as in the video orientation (CVO) of 3GPP TS
/// 26.114 §7.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rotation {
    /// No rotation: the picture is upright already.
    #[default]
    None,
    /// 90° clockwise.
    By90,
    /// 180°.
    By180,
    /// 270° clockwise.
    By270,
}

/// Rotates the picture clockwise. Quarter turns exchange its width and height. [`Rotation::None`]
/// costs nothing.
pub fn rotate(picture: I420, rotation: Rotation) -> I420 {
    let (width, height) = match rotation {
        Rotation::None => return picture,
        Rotation::By180 => (picture.width(), picture.height()),
        Rotation::By90 | Rotation::By270 => (picture.height(), picture.width()),
    };
    let mut turned = picture.another(width, height);
    let columns = [width, turned.chroma_width(), turned.chroma_width()];
    for ((target, source), columns) in turned.planes_mut().into_iter().zip(picture.planes()).zip(columns) {
        match rotation {
            Rotation::None => target.copy_from_slice(source),
            Rotation::By90 => quarter_turn(source, target, columns as usize, Clockwise(true)),
            Rotation::By180 => target.iter_mut().zip(source.iter().rev()).for_each(|(target, source)| *target = *source),
            Rotation::By270 => quarter_turn(source, target, columns as usize, Clockwise(false)),
        }
    }
    turned
}

#[derive(Clone, Copy)]
struct Clockwise(bool);

/// Rotates a plane by 90°. `columns` is the width of `target`, which is the height of `source`.
fn quarter_turn(source: &[u8], target: &mut [u8], columns: usize, Clockwise(clockwise): Clockwise) {
    /// Side of the square blocks in which pixels are copied, so that the columns read stay in the
    /// cache.
    const BLOCK: usize = 32;
    let rows = target.len() / columns;
    for block_top in (0..rows).step_by(BLOCK) {
        for block_left in (0..columns).step_by(BLOCK) {
            for row in block_top..(block_top + BLOCK).min(rows) {
                let right = (block_left + BLOCK).min(columns);
                for (column, pixel) in (block_left..right).zip(&mut target[row * columns + block_left..row * columns + right]) {
                    // A row of the source has `rows` pixels.
                    *pixel = if clockwise { source[(columns - 1 - column) * rows + row] } else { source[column * rows + rows - 1 - row] };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a picture in which every byte differs from its neighbours, so that a pixel in the
    /// wrong place shows.
    fn numbered(width: u32, height: u32) -> I420 {
        let mut picture = I420::grey(width, height, 16);
        for plane in picture.planes_mut() {
            plane.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 7 % 251) as u8);
        }
        picture
    }

    #[test]
    fn quarter_turn_clockwise_brings_the_left_column_to_the_top_reversed() {
        let mut picture = I420::grey(3, 2, 16);
        picture.planes_mut()[0].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        picture.planes_mut()[1].copy_from_slice(&[7, 8]);
        let turned = rotate(picture.clone(), Rotation::By90);
        assert_eq!((turned.width(), turned.height()), (2, 3));
        assert_eq!(turned.planes()[0], [4, 1, 5, 2, 6, 3]);
        assert_eq!(turned.planes()[1], [7, 8]);
        assert_eq!(rotate(picture.clone(), Rotation::By180).planes()[0], [6, 5, 4, 3, 2, 1]);
        assert_eq!(rotate(picture.clone(), Rotation::By180).planes()[1], [8, 7]);
        assert_eq!(rotate(picture.clone(), Rotation::By270).planes()[0], [3, 6, 2, 5, 1, 4]);
        assert_eq!(rotate(picture.clone(), Rotation::None), picture);
    }

    #[test]
    fn turns_add_up_at_even_and_odd_sizes() {
        for (width, height) in [(640, 480), (641, 481), (33, 70), (1, 5), (1, 1), (2, 1)] {
            let picture = numbered(width, height);
            let once = rotate(picture.clone(), Rotation::By90);
            let twice = rotate(once.clone(), Rotation::By90);
            let thrice = rotate(twice.clone(), Rotation::By90);
            assert!(twice == rotate(picture.clone(), Rotation::By180), "{width}x{height}");
            assert!(thrice == rotate(picture.clone(), Rotation::By270), "{width}x{height}");
            assert!(rotate(thrice, Rotation::By90) == picture, "{width}x{height}");
        }
    }
}
