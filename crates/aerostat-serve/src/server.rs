//! The server: a thread for connections, beside the engine's.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aerostat::session::{RequestId, RequestState};
use aerostat::{ModelFiles, Options, Session};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::body::Body;
use crate::config::Config;
use crate::connection::{Busy, Timed};
use crate::engine;
use crate::error::{Error, ErrorKind};
use crate::ids;
use crate::problem::Problem;
use crate::responses;
use crate::router;
use crate::store::Store;
use crate::text::{line, problem_response};
use crate::worker::Worker;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Headers of a request at most that are read, which is more than it may have: what is refused here has an answer without a
/// body. And bytes that are read ahead of it.
const HEADERS_READ_MAX: usize = 1000;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body that is there which need not be counted.
const UNHELD_BYTES_MAX: usize = 64 << 10;
/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;
/// Connections that are told at once that there are too many, and how long each may take over it.
const REFUSED_MAX: usize = 1024;
const REFUSE_TIME: Duration = Duration::from_secs(1);
/// A moment after a failure to accept, such as a lack of file descriptors.
const MOMENT: Duration = Duration::from_millis(50);

/// A server under way. Dropping it ends it as [`Server::stop`] does.
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    files: Arc<ModelFiles>,
    options: Options,
    session: Option<Session>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to listen. Until [`Server::open`] has opened the model, requests for it are told to come again.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for what is not safe, [`ErrorKind::Network`] where the address cannot be had.
    pub fn start(config: Config, files: Arc<ModelFiles>, options: Options) -> Result<Self, Error> {
        config.check()?;
        let address = SocketAddr::new(config.host, config.port);
        let failed = |e: io::Error| {
            Error::new(
                ErrorKind::Network,
                format!("cannot listen at {address}: {e}; --port names another port"),
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let listener = listen(&runtime, address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let folder = config.data.as_deref();
        let store = folder.map(|folder| Store::open(folder, config.data_bytes_max)).transpose()?;
        let app = Arc::new(App::new(config, options.memory_bytes, store));
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&app);
        let handle = runtime.handle().clone();
        let run = move || {
            runtime.block_on(accept(shared, listener, stopped));
            // What is still read for requests is not waited for.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("aerostat-http".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { app, address, files, options, session: None, runtime: handle, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the model, and comes back when it is open.
    ///
    /// # Errors
    /// [`ErrorKind::Model`]; [`ErrorKind::Interrupted`] if [`Server::stopper`] was called.
    pub fn open(&mut self) -> Result<(), Error> {
        let app = &self.app;
        let early = |handle| drop(app.session.set(handle));
        let told = (Arc::clone(&app.stop), Arc::clone(&app.engine_ended), Arc::clone(&app.metrics));
        let (session, model) =
            engine::open(&app.config, Arc::clone(&self.files), &self.options, told, early)?;
        let model = app.opened(model);
        self.session = Some(session);
        if let Ok(store) = app.store() {
            let stop = Arc::clone(&app.stop);
            let worker = Worker::start(Arc::clone(store), model, app.config.keep_days, stop);
            let worker =
                worker.map_err(|e| Error::new(ErrorKind::Data, format!("batches cannot be run: {e}")))?;
            // It is opened once.
            let _ = app.worker.set(worker);
            self.runtime.spawn(responses::resume(Arc::clone(app)));
        }
        Ok(())
    }

    /// Asks it to stop at once, from any thread.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let app = Arc::clone(&self.app);
        move || app.stop.store(true, Ordering::Relaxed)
    }

    /// Ends it: requests under way are told so, connections are closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.app.stop.store(true, Ordering::Relaxed);
        self.app.orphans.clear();
        // All requests end when the session does; what they are told is still written.
        drop(self.session.take());
        if let Some(worker) = self.app.worker.get() {
            worker.finish();
        }
        // Without its thread there is nothing to stop.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been told by it.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Listens, with room for many that come at once: what the system turns away tries again seconds later only.
fn listen(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _context = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that is started again need not wait for what is left of its connections.
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections until it is stopped, and then waits for them a moment.
async fn accept(app: Arc<App>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let (open, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(look(Arc::clone(&app)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, _)) if open.load(Ordering::Relaxed) >= app.config.limits.connections_max => {
                // Beyond these, nobody is told.
                if refused.load(Ordering::Relaxed) < REFUSED_MAX {
                    tokio::spawn(refuse(stream, Open::new(&refused)));
                }
            }
            Ok((stream, _)) => {
                let guard = Open::new(&open);
                tokio::spawn(serve(Arc::clone(&app), stream, stop.clone(), guard));
            }
            Err(_) => sleep(MOMENT).await,
        }
    }
    drop(listener);
    let gone = async {
        // Responses in the background save what they have.
        while open.load(Ordering::Relaxed) > 0 || app.hubs.under_way() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Who does not take the last answer by then does not get it.
    let _ = timeout(app.config.limits.goodbye_time, gone).await;
}

/// Notes from time to time which requests the engine has taken up.
async fn look(app: Arc<App>) {
    loop {
        sleep(app.config.limits.look_time).await;
        if app.registry.is_empty() {
            continue;
        }
        let Some(handle) = app.session.get() else { continue };
        let list = handle.requests();
        let taken = list.into_iter().filter(|status| status.state != RequestState::Waiting);
        let taken: HashSet<RequestId> = taken.map(|status| status.id).collect();
        app.registry.look(|id| taken.contains(&id));
    }
}

/// Counts a connection.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells a client that there are too many.
async fn refuse(mut stream: TcpStream, _guard: Open) {
    let problem = Problem::busy("there are too many connections; try again later");
    let body = line(&problem.body());
    let text = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 30\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        // It may be gone already.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        // What it still sends is read for a moment: a connection that is closed over it may take the answer with it.
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    };
    let _ = timeout(REFUSE_TIME, told).await;
}

/// Serves one connection.
async fn serve(app: Arc<App>, stream: TcpStream, mut stop: watch::Receiver<bool>, _guard: Open) {
    // Without it small chunks come late; a stream works either way.
    let _ = stream.set_nodelay(true);
    let busy = Busy::default();
    let io = TokioIo::new(Timed::new(stream, busy.clone(), &app.config.limits));
    let service = service_fn(move |request| respond(Arc::clone(&app), busy.clone(), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_headers(HEADERS_READ_MAX);
    builder.max_buf_size(BUFFER_BYTES_MAX).half_close(false);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        // How a connection ended concerns its client only.
        _ = connection.as_mut() => return,
        _ = stop.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// What a client may be slow to take counts among the memory that clients share.
fn hold(app: &App, response: Response<Body>) -> Result<Response<Body>, Problem> {
    match response.body().unheld() {
        0..=UNHELD_BYTES_MAX => Ok(response),
        bytes => {
            let held = app.bytes.hold(bytes)?;
            Ok(response.map(|body| body.holding(held)))
        }
    }
}

/// Answers a request in any case.
async fn respond(
    app: Arc<App>,
    busy: Busy,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    busy.begin();
    // Where its length is said in two ways, what follows may be meant as another request by somebody before us.
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let answered = router::handle(&app, request).await;
    let answered = answered.and_then(|response| hold(&app, response));
    let mut response = answered.unwrap_or_else(|problem| problem_response(&problem));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&format!("req_{}", ids::hex())) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if chunked {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| body.then(move || busy.end())))
}
