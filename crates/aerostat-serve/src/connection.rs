//! A connection that is let go when its client is too slow, in whatever it does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Limits;

/// Whether a request is being answered, as the one that answers says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<(AtomicBool, AtomicU64)>);

impl Busy {
    /// A request has come.
    pub(crate) fn begin(&self) {
        self.0.0.store(true, Ordering::Relaxed);
    }

    /// Its answer was written, or nobody wants it.
    pub(crate) fn end(&self) {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        self.0.0.store(false, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Requests that were answered.
    fn answered(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// What a client sends after the last answer is read for so long.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The next request.
    Request,
    /// The rest of its headers.
    Headers,
    /// Its answer: bodies have time limits of their own.
    Answer,
}

/// A stream with time limits: hyper's own for headers would end idle connections as early as slow ones.
pub(crate) struct Timed {
    stream: TcpStream,
    busy: Busy,
    /// Requests that were answered when it last looked.
    answered: u64,
    wait: Wait,
    read_by: Pin<Box<Sleep>>,
    write_by: Pin<Box<Sleep>>,
    /// Something waits to be written.
    writing: bool,
    header_time: Duration,
    idle_time: Duration,
    write_time: Duration,
    /// Nothing more is written.
    shut: bool,
}

impl Timed {
    /// A connection that has just been made: its first request is waited for as long as headers are.
    pub(crate) fn new(stream: TcpStream, busy: Busy, limits: &Limits) -> Self {
        let Limits { header_time, idle_time, write_time, .. } = *limits;
        Self {
            stream,
            busy,
            answered: 0,
            wait: Wait::Headers,
            read_by: Box::pin(sleep(header_time)),
            write_by: Box::pin(sleep(write_time)),
            writing: false,
            header_time,
            idle_time,
            write_time,
            shut: false,
        }
    }

    fn turn(&mut self, wait: Wait, time: Duration) {
        self.wait = wait;
        self.read_by.as_mut().reset(Instant::now() + time);
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")
}

impl AsyncRead for Timed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A request may be read and answered between two reads.
        let answered = this.busy.answered();
        if this.busy.get() {
            this.wait = Wait::Answer;
        } else if this.wait == Wait::Answer || answered != this.answered {
            this.answered = answered;
            this.turn(Wait::Request, this.idle_time);
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_ready() {
            if this.wait == Wait::Request && buffer.filled().len() > before {
                this.turn(Wait::Headers, this.header_time);
            }
            return read;
        }
        match this.wait {
            Wait::Answer => Poll::Pending,
            _ => this.read_by.as_mut().poll(context).map(|()| Err(too_slow())),
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Pending => {
                // What was written before may be long ago.
                if !std::mem::replace(&mut this.writing, true) {
                    this.write_by.as_mut().reset(Instant::now() + this.write_time);
                }
                this.write_by.as_mut().poll(context).map(|()| Err(too_slow()))
            }
            ready => {
                this.writing = false;
                ready
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    /// What a client still sends is read for a moment: a connection that is closed over it may take the answer with it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.shut = true;
            this.turn(Wait::Answer, LINGER_TIME);
        }
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    if this.read_by.is_elapsed() {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.read_by.as_mut().poll(context).map(Ok),
            }
        }
    }
}
