//! Many reads under way from one thread: the state machine over a kernel that runs them, real or simulated.

use std::io;

use crate::buffer::AlignedBuffer;
use crate::pool::Queues;
use crate::reader::{Positional, Progress, Reader};
use crate::source::Read;

/// What runs read calls while its caller waits for whichever ends first.
///
/// It owns a call, and so the buffer the call writes to, from [`Kernel::start`] until it hands it back; dropped,
/// it waits for the calls it still has.
pub(crate) trait Kernel: Send + 'static {
    /// Takes on one read call, for the rest of the call's progress. Never waits for the disk. Fails only by an
    /// answer of [`Kernel::finish`].
    fn start(&mut self, call: Call);

    /// Waits until one of the calls is over; `None` if it has none.
    fn finish(&mut self) -> Option<(Call, io::Result<usize>)>;
}

/// One read that is under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) tag: u64,
    pub(crate) progress: Progress,
    pub(crate) buffer: AlignedBuffer,
}

/// What the thread does until the pool closes and the kernel is idle.
///
/// A read queued while others are under way starts when the first of those ends: the thread sleeps in the
/// kernel until then. With two reads under way or more, the disk does not notice.
pub(crate) fn work<P: Positional>(
    reader: &Reader<P>,
    mut kernel: impl Kernel,
    depth: usize,
    queues: &Queues,
) {
    let mut under_way = 0;
    loop {
        while under_way < depth
            && let Some(Read { tag, extent, buffer }) = queues.take(under_way == 0)
        {
            match reader.begin(extent, buffer.len()) {
                Ok(progress) if progress.is_whole() => queues.land(tag, buffer, Ok(progress.range())),
                Ok(progress) => {
                    kernel.start(Call { tag, progress, buffer });
                    under_way += 1;
                }
                Err(error) => queues.land(tag, buffer, Err(error)),
            }
        }
        let Some((mut call, answer)) = kernel.finish() else { return };
        let result = match reader.advance(&mut call.progress, answer) {
            Ok(()) if !call.progress.is_whole() => {
                kernel.start(call);
                continue;
            }
            Ok(()) => Ok(call.progress.range()),
            Err(error) => Err(error),
        };
        under_way -= 1;
        queues.land(call.tag, call.buffer, result);
    }
}
