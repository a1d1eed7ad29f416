//! The body of what an agent gets, wherever it comes from.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::body::BodyError;
use crate::pipe::Pipe;
use crate::shaped::CountedBody;
use crate::shared_stream::Reader;

/// The body of what an agent gets.
pub(crate) enum Outgoing {
    Whole(Full<Bytes>),
    Stream(Box<Pipe>),
    /// A stream that several may read.
    Joined(Reader),
    Through(Box<CountedBody>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Stream(pipe) => Pin::new(&mut **pipe).poll_frame(cx),
            Self::Joined(reader) => Pin::new(reader).poll_frame(cx),
            Self::Through(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Through(body) => body.size_hint(),
            Self::Stream(_) | Self::Joined(_) => SizeHint::default(),
        }
    }
}
