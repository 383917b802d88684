//! Downloads of files, whole or in parts (RFC 9110, section 14).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// Bytes that are read at a time.
const CHUNK: u64 = 64 * 1024;

/// The part of a file that a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    /// The file has no such part.
    Outside,
}

/// A part of a file that is still to be sent.
struct Rest {
    file: File,
    range: Range<u64>,
}

/// Answers a request for a file, or for a part of it. A file that grows is answered as long as it is
/// now.
///
/// # Errors
/// When it cannot be opened.
pub(super) async fn download(path: PathBuf, content_type: &'static str, headers: &HeaderMap) -> io::Result<Response> {
    let open = move || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let (file, length) = tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
    // There is no validator that If-Range could name.
    let range = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE));
    let (status, range) = match Asked::read(range.and_then(|range| range.to_str().ok()), length) {
        Asked::Whole => (StatusCode::OK, 0..length),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Outside => {
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{length}"))]).into_response());
        }
    };
    let about = [
        (header::CONTENT_TYPE, content_type.to_string()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
        (header::ACCEPT_RANGES, "bytes".into()),
    ];
    let part = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
    let part = (status == StatusCode::PARTIAL_CONTENT).then_some([(header::CONTENT_RANGE, part)]);
    let bytes = stream::try_unfold(Rest { file, range }, async |rest| {
        tokio::task::spawn_blocking(move || rest.read()).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    });
    Ok((status, about, part, Body::from_stream(bytes)).into_response())
}

impl Asked {
    /// Reads the header `Range`. Several ranges, and what is no range, ask for the whole file.
    fn read(range: Option<&str>, length: u64) -> Self {
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        if !first.bytes().chain(last.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Self::Whole;
        }
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first > last => Self::Whole,
            (Ok(first), _) if first >= length => Self::Outside,
            (Ok(first), Ok(last)) => Self::Part(first..length.min(last.saturating_add(1))),
            (Ok(first), Err(_)) if last.is_empty() => Self::Part(first..length),
            (Err(_), Ok(0)) => Self::Outside,
            (Err(_), Ok(last)) if first.is_empty() => Self::Part(length.saturating_sub(last)..length),
            _ => Self::Whole,
        }
    }
}

impl Rest {
    /// Reads the next bytes. `None` at the end.
    fn read(self) -> io::Result<Option<(Vec<u8>, Self)>> {
        let Self { file, range } = self;
        let mut bytes = vec![0; (range.end - range.start).min(CHUNK) as usize];
        if bytes.is_empty() {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, range.start)?;
        let start = range.start + bytes.len() as u64;
        Ok(Some((bytes, Self { file, range: start..range.end })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        use Asked::{Outside, Part, Whole};
        for (range, expected) in [
            ("bytes=0-", Part(0..100)),
            ("bytes=0-0", Part(0..1)),
            ("bytes=10-19", Part(10..20)),
            ("bytes=90-1000", Part(90..100)),
            ("bytes=5-18446744073709551615", Part(5..100)),
            ("bytes=-10", Part(90..100)),
            ("bytes=-1000", Part(0..100)),
            ("bytes=100-", Outside),
            ("bytes=100-200", Outside),
            ("bytes=-0", Outside),
            ("bytes=20-10", Whole),
            ("bytes=0-1,5-6", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=99999999999999999999-", Whole),
            ("lines=1-2", Whole),
        ] {
            assert_eq!(Asked::read(Some(range), 100), expected, "{range}");
        }
        assert_eq!((Asked::read(None, 100), Asked::read(Some("bytes=0-"), 0)), (Whole, Outside));
    }
}
