//! Interpretation of output shapes according to the declaration. It is used before a model runs,
//! when dimensions may be unknown, and for each tensor that the model returns.

use super::toml::{Layout, Order};

/// A dimension; `None` if unknown.
pub(super) type Side = Option<usize>;

/// Returns channels, rows and columns of `[1, C, H, W]`, `[C, H, W]` or `[H, W]`, or of the
/// variants with the channels last.
pub(super) fn planes(shape: &[Side], layout: Layout) -> Result<[Side; 3], String> {
    let example = match layout {
        Layout::Nchw => "[1, C, H, W]",
        Layout::Nhwc => "[1, H, W, C]",
    };
    let inner = match shape {
        [batch, inner @ ..] if shape.len() == 4 && batch.is_none_or(|batch| batch == 1) => inner,
        inner => inner,
    };
    Ok(match *inner {
        [channels, height, width] if layout == Layout::Nchw => [channels, height, width],
        [height, width, channels] => [channels, height, width],
        [height, width] => [Some(1), height, width],
        _ => return Err(format!("it is {}, where layout = \"{}\" wants {example}", words(shape), name(layout))),
    })
}

/// Returns the number of candidates N and of values of each K, for `[1, N, K]` or `[N, K]`, or with
/// `order = "columns"` for `[1, K, N]` or `[K, N]`.
pub(super) fn table(shape: &[Side], order: Order) -> Result<[Side; 2], String> {
    let [a, b] = match *shape {
        [batch, a, b] if batch.is_none_or(|batch| batch == 1) => [a, b],
        [a, b] => [a, b],
        _ => return Err(format!("it is {}, where candidates are {}", words(shape), example(order))),
    };
    Ok(if order == Order::Rows { [a, b] } else { [b, a] })
}

/// Returns the number of candidates and of scores of each, for a separate tensor of scores, which
/// may also be `[1, N]` or `[N]`.
pub(super) fn scores(shape: &[Side], order: Order, candidates: Side) -> Result<[Side; 2], String> {
    match *shape {
        [count] => Ok([count, Some(1)]),
        [Some(1), count] if candidates != Some(1) => Ok([count, Some(1)]),
        _ => table(shape, order),
    }
}

/// Returns the number of classes of `[1, C]`, `[C]` or `[1, C, 1, 1]`.
pub(super) fn classes(shape: &[Side]) -> Result<Side, String> {
    let wide: Vec<_> = shape.iter().filter(|side| **side != Some(1)).collect();
    match wide[..] {
        [] => Ok(Some(1)),
        [classes] => Ok(*classes),
        _ => Err(format!("it is {}, where one score for each class is wanted: [1, C]", words(shape))),
    }
}

/// Formats a shape as `[1, 3, ?, ?]`.
pub(super) fn words(shape: &[Side]) -> String {
    let sides: Vec<_> = shape.iter().map(|side| side.map_or("?".into(), |side| side.to_string())).collect();
    format!("[{}]", sides.join(", "))
}

pub(super) fn name(layout: Layout) -> &'static str {
    match layout {
        Layout::Nchw => "nchw",
        Layout::Nhwc => "nhwc",
    }
}

fn example(order: Order) -> &'static str {
    match order {
        Order::Rows => "the rows of [1, N, K]; with order = \"columns\" the columns of [1, K, N]",
        Order::Columns => "the columns of [1, K, N]; with order = \"rows\" the rows of [1, N, K]",
    }
}
