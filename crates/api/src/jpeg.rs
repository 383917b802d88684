//! The thread that encodes pictures as JPEG.
//!
//! It encodes those of all rooms, one after another, at a lower priority than tracks and workers, so
//! that readers of JPEG pictures slow each other down before anybody else.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ooblex_codec::encode_jpeg;
use ooblex_pipeline::I420;
use ooblex_worker::lower_priority;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// The priority (`nice`) of the thread.
const NICE: i32 = 10;
/// Pictures that wait for the thread. A room has at most one picture on its way; its task waits for a
/// place.
const QUEUE: usize = 1;

/// The thread that encodes. Clones share it, and it ends with the last of them.
#[derive(Clone)]
pub struct JpegEncoder(mpsc::Sender<Job>);

struct Job {
    picture: I420,
    reply: oneshot::Sender<Vec<u8>>,
}

impl JpegEncoder {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name("jpeg".into()).spawn(move || {
            lower_priority(NICE);
            while let Some(Job { picture, reply }) = queue.blocking_recv() {
                match catch_unwind(AssertUnwindSafe(|| encode_jpeg(&picture))) {
                    Ok(Ok(jpeg)) => _ = reply.send(jpeg),
                    Ok(Err(error)) => warn!(%error, ?picture, "a picture was not encoded as JPEG"),
                    Err(_) => warn!(?picture, "the JPEG encoder panicked"),
                }
            }
        })?;
        Ok(Self(jobs))
    }

    /// Encodes a picture. `None` if that failed; the log has the reason.
    pub(crate) async fn encode(&self, picture: I420) -> Option<Vec<u8>> {
        let (reply, jpeg) = oneshot::channel();
        self.0.send(Job { picture, reply }).await.ok()?;
        jpeg.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn thread_encodes_for_many_and_forgets_those_who_leave() {
        let encoder = JpegEncoder::start().unwrap();
        _ = tokio::time::timeout(std::time::Duration::ZERO, encoder.encode(I420::grey(640, 480, 90))).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let encoder = encoder.clone();
            tasks.spawn(async move { encoder.encode(I420::grey(64, 48, 90)).await });
        }
        let jpegs = tasks.join_all().await;
        assert!(jpegs.len() == 8 && jpegs.iter().all(|jpeg| jpeg.as_deref().is_some_and(|jpeg| jpeg.starts_with(&[0xff, 0xd8]))));
    }
}
