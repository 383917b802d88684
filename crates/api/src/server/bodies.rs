//! Wrappers of HTTP bodies: request bodies with a deadline, and response bodies that report their
//! end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::watch::{Phase, Watch};
use ooblex_gateway::metrics::HttpFigures;

/// The request body did not arrive before its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come within {0:?}")]
pub struct BodyTimedOut(pub Duration);

/// A request body with one deadline for the whole body, not for each part.
pub(super) struct Limited {
    body: Incoming,
    within: Duration,
    deadline: Pin<Box<Sleep>>,
    watch: Arc<Watch>,
    figures: HttpFigures,
}

impl Limited {
    pub(super) fn new(body: Incoming, within: Duration, watch: Arc<Watch>, figures: HttpFigures) -> Self {
        Self { body, within, deadline: Box::pin(sleep(within)), watch, figures }
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => {
                self.figures.on_cut("body");
                Poll::Ready(Some(Err(BodyTimedOut(self.within).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.watch.advance(Phase::Body, Phase::Answering);
    }
}

/// A response body that reports its end, which begins the wait for the next request.
pub(super) struct Answer {
    body: Body,
    watch: Arc<Watch>,
}

impl Answer {
    /// Wraps a body. One of unknown length begins [`Phase::Streaming`].
    pub(super) fn new(body: Body, watch: Arc<Watch>) -> Self {
        if body.size_hint().exact().is_none() {
            watch.enter(Phase::Streaming);
        }
        Self { body, watch }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.enter(Phase::Idle);
    }
}
