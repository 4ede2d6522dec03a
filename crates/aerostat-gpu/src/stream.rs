//! The stream of commands: recorded on the caller's thread, handed to the device by a thread of its own, in batches.
//!
//! Some drivers compute while a batch is handed to them, so that the caller would wait. Commands take effect in the order
//! in which they are recorded; the device waits between two that touch the same buffer.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aerostat_backend::{DeviceCounters, Error, ErrorKind};

use crate::budget::Buffer;
use crate::context::Context;
use crate::pipelines::{Pipeline, Words};

/// Dispatches of a batch at most.
const DISPATCHES_MAX: usize = 256;
/// How long to wait before the device is asked again whether a buffer is mapped.
const MAP_TIME: Duration = Duration::from_millis(2);
/// Batches that may wait to be handed over.
const BATCHES_AHEAD: usize = 8;
/// The most buffers that a kernel has.
pub(crate) const BINDINGS_MAX: usize = 8;

/// The number of a batch; they are finished in this order.
pub(crate) type Ticket = u64;

/// Records commands.
pub(crate) struct Stream {
    context: Arc<Context>,
    // The pass is dropped before what it is part of.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    dispatches: usize,
    groups: HashMap<(usize, [u32; BINDINGS_MAX]), wgpu::BindGroup>,
    next: Ticket,
    finished: Ticket,
    submitter: Submitter,
    pub(crate) counters: DeviceCounters,
}

/// The thread that hands batches over.
struct Submitter {
    sender: Option<SyncSender<(Ticket, wgpu::CommandBuffer)>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Whether a buffer is mapped; told by whichever thread finds out.
#[derive(Default)]
pub(crate) struct Mapped {
    /// `None`: it is not known yet.
    state: Mutex<Option<bool>>,
    told: Condvar,
}

impl Mapped {
    pub(crate) fn tell(&self, is_mapped: bool) {
        *self.lock() = Some(is_mapped);
        self.told.notify_all();
    }

    /// It is the device's again.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    pub(crate) fn is_mapped(&self) -> bool {
        *self.lock() == Some(true)
    }

    fn has_failed(&self) -> bool {
        *self.lock() == Some(false)
    }

    fn wait(&self, time: Duration) -> bool {
        let state = self.told.wait_timeout_while(self.lock(), time, |state| state.is_none());
        *state.unwrap_or_else(PoisonError::into_inner).0 == Some(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<bool>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<Submitted>,
    changed: Condvar,
}

#[derive(Default)]
struct Submitted {
    batches: VecDeque<(Ticket, wgpu::SubmissionIndex)>,
    last: Ticket,
    ended: bool,
}

impl Stream {
    pub(crate) fn new(context: Arc<Context>) -> Result<Self, Error> {
        let submitter = Submitter::start(Arc::clone(&context))?;
        Ok(Self {
            context,
            pass: None,
            encoder: None,
            dispatches: 0,
            groups: HashMap::new(),
            next: 1,
            finished: 0,
            submitter,
            counters: DeviceCounters::default(),
        })
    }

    /// Starts a kernel on so many workgroups.
    pub(crate) fn dispatch(
        &mut self,
        pipeline: &Pipeline,
        buffers: &[&Buffer],
        words: &Words,
        workgroups: (usize, usize),
    ) -> Result<(), Error> {
        const GROUPS_MAX: usize = 65_535;
        if workgroups.0 == 0 || workgroups.1 == 0 {
            return Ok(());
        }
        if workgroups.0 > GROUPS_MAX {
            return Err(Error::shape(format!("{} workgroups are more than a device has", workgroups.0)));
        }
        self.context.check()?;
        let group = self.group(pipeline, buffers);
        let encoder = encoder(&self.context, &mut self.encoder);
        let pass = self.pass.get_or_insert_with(|| {
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
        });
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &group, &[]);
        pass.set_immediates(0, &words.bytes());
        pass.dispatch_workgroups(workgroups.0 as u32, workgroups.1.min(GROUPS_MAX) as u32, 1);
        self.counters.dispatches += 1;
        self.dispatches += 1;
        if self.dispatches >= DISPATCHES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Copies bytes, all of them whole words, between buffers.
    pub(crate) fn copy(&mut self, from: (&Buffer, u64), to: (&Buffer, u64), bytes: u64) {
        self.pass = None;
        let encoder = encoder(&self.context, &mut self.encoder);
        encoder.copy_buffer_to_buffer(&from.0.raw, from.1, &to.0.raw, to.1, bytes);
    }

    /// Has a buffer mapped once all commands so far are done with it.
    pub(crate) fn map(&mut self, buffer: &Buffer, mode: wgpu::MapMode, mapped: &Arc<Mapped>) {
        self.pass = None;
        let encoder = encoder(&self.context, &mut self.encoder);
        let mapped = Arc::clone(mapped);
        encoder.map_buffer_on_submit(&buffer.raw, mode, .., move |done| mapped.tell(done.is_ok()));
    }

    /// The batch that is being recorded.
    pub(crate) fn ticket(&self) -> Ticket {
        self.next
    }

    /// Hands what was recorded to the device.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.pass = None;
        self.dispatches = 0;
        if let Some(encoder) = self.encoder.take() {
            let sender = self.submitter.sender.as_ref();
            let sent = sender.is_some_and(|sender| sender.send((self.next, encoder.finish())).is_ok());
            if !sent {
                self.context.fail("the thread that hands work to it has ended");
            }
            self.next += 1;
            self.counters.submissions += 1;
        }
        self.context.check()
    }

    /// Waits until a batch is finished; hands it over first if need be.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> Result<(), Error> {
        if ticket <= self.finished {
            return Ok(());
        }
        if ticket >= self.next {
            self.flush()?;
        }
        let ticket = ticket.min(self.next.saturating_sub(1));
        let index = self.submitter.submitted(ticket);
        let Some(index) = index else {
            self.context.check()?;
            self.finished = self.finished.max(ticket);
            return Ok(());
        };
        self.context.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        self.finished = ticket;
        self.counters.waits += 1;
        self.context.check()
    }

    /// Waits until a buffer is mapped, as a batch asked.
    pub(crate) fn wait_mapped(&mut self, ticket: Ticket, mapped: &Mapped) -> Result<(), Error> {
        self.wait(ticket)?;
        // The thread that hands batches over may be the one that is about to tell.
        while !mapped.wait(MAP_TIME) {
            self.context.check()?;
            if mapped.has_failed() {
                return Err(Error::new(ErrorKind::Device, "memory of the device could not be mapped"));
            }
            self.context.poll(wgpu::PollType::Poll);
        }
        Ok(())
    }

    /// Waits until all is done.
    pub(crate) fn wait_all(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.wait(self.next - 1)
    }

    /// Forgets which buffers were used together, so that memory of those that are dropped comes free.
    pub(crate) fn forget(&mut self) {
        self.groups.clear();
    }

    fn group(&mut self, pipeline: &Pipeline, buffers: &[&Buffer]) -> wgpu::BindGroup {
        let mut key = [u32::MAX; BINDINGS_MAX];
        key.iter_mut().zip(buffers).for_each(|(id, buffer)| *id = buffer.id);
        let group = self.groups.entry((pipeline.layout_number, key)).or_insert_with(|| {
            let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.raw.as_entire_binding(),
                })
                .collect();
            self.context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.layout,
                entries: &entries,
            })
        });
        group.clone()
    }
}

fn encoder<'a>(
    context: &Context,
    slot: &'a mut Option<wgpu::CommandEncoder>,
) -> &'a mut wgpu::CommandEncoder {
    slot.get_or_insert_with(|| {
        context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    })
}

impl Submitter {
    fn start(context: Arc<Context>) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel::<(Ticket, wgpu::CommandBuffer)>(BATCHES_AHEAD);
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let hand_over = move || {
            // Whoever waits is woken, even if this thread panics.
            let ending = Ending(told);
            while let Ok((ticket, batch)) = receiver.recv() {
                let index = context.queue.submit([batch]);
                let mut state = ending.0.lock();
                state.batches.push_back((ticket, index));
                state.last = ticket;
                ending.0.changed.notify_all();
            }
        };
        let thread = std::thread::Builder::new().name("gpu".to_owned()).spawn(hand_over);
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Device, format!("a thread for the device cannot be started: {error}"))
        })?;
        Ok(Self { sender: Some(sender), shared, thread: Some(thread) })
    }

    /// Waits until a batch was handed over; `None`: it never will be, or was waited for.
    fn submitted(&self, ticket: Ticket) -> Option<wgpu::SubmissionIndex> {
        let mut state = self.shared.lock();
        while state.last < ticket && !state.ended {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut found = None;
        while state.batches.front().is_some_and(|(number, _)| *number <= ticket) {
            found = state.batches.pop_front().map(|(_, index)| index);
        }
        found
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Submitted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}
