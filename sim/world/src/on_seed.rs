//! The only way into a world: one seed, one fresh thread, one runtime.
//!
//! A fresh thread, because std's hash keys and tokio's random numbers are drawn once a thread; madsim's runtime first
//! in it, because it sets the former; warm-up before it, because an initialiser that runs once a process would draw
//! from the first seed only. At the end all nodes are killed and the runtime steps once more, so that their tasks are
//! freed.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Once;
use std::task::Poll;
use std::time::Duration;

use crate::agenda;
use crate::kernel::{self, Kernel, WORLD};
use crate::{DiskLaw, Effect, LinkLaw, SimTime, Story, Tail, TraceEvent, World};

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides every draw of network, disks and `env::rng`.
    pub world_seed: u64,
    /// Decides which ready task runs next, and nothing else.
    pub schedule_seed: u64,
    /// Passing it is [`Why::TimeLimit`].
    pub sim_limit: Duration,
    /// Passing this many events of the world is [`Why::EventLimit`]: a run that is busy for ever ends too.
    pub event_limit: u64,
    /// Law of links between nodes until changed.
    pub law: LinkLaw,
    /// Law of a node's link to itself.
    pub loopback: LinkLaw,
    /// Law of every disk until changed.
    pub disk: DiskLaw,
    /// All wall clocks at the start: milliseconds since 1970-01-01T00:00Z.
    pub wall_epoch_ms: i64,
    /// Keeps the events behind W, for finding the first that differs. It does not change W.
    pub keep_trace: bool,
    /// Keeps the messages that a picture of the run needs. It does not change W.
    pub keep_story: bool,
    /// Other draws from an instant on.
    pub tail: Option<Tail>,
}

impl Config {
    pub fn new(world_seed: u64, schedule_seed: u64) -> Self {
        Self { world_seed, schedule_seed, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            world_seed: 0,
            schedule_seed: 0,
            sim_limit: Duration::from_secs(600),
            event_limit: u64::MAX,
            law: LinkLaw::LAN,
            loopback: LinkLaw::LOOPBACK,
            disk: DiskLaw::SSD,
            wall_epoch_ms: 1_700_000_000_000,
            keep_trace: false,
            keep_story: false,
            tail: None,
        }
    }
}

/// What is known of every run, however it ended. `Finished` and `Failed` lead to it by `Deref`.
#[derive(Debug)]
pub struct Run {
    /// W, up to the end.
    pub trace_hash: u64,
    pub sim_elapsed: Duration,
    /// Events in W.
    pub events: u64,
    pub effects: Vec<Effect>,
    /// Empty unless [`Config::keep_trace`].
    pub trace: Vec<TraceEvent>,
    /// Without messages unless [`Config::keep_story`].
    pub story: Story,
}

/// A run that came to its end.
#[derive(Debug)]
pub struct Finished<T> {
    pub value: T,
    pub run: Box<Run>,
}

/// A run that did not.
#[derive(Debug)]
pub struct Failed {
    pub why: Why,
    pub run: Box<Run>,
}

impl<T> std::ops::Deref for Finished<T> {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl std::ops::Deref for Failed {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// `message` ends with the place. `node` is absent for the world's own code.
    Panic {
        message: String,
        node: Option<String>,
    },
    /// Nothing will ever happen again, and the run is not over.
    Deadlock,
    TimeLimit,
    EventLimit,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Panic { message, node: Some(node) } => write!(f, "{node} panicked: {message}"),
            Why::Panic { message, node: None } => write!(f, "panicked: {message}"),
            Why::Deadlock => f.write_str("deadlock: all tasks wait for ever"),
            Why::TimeLimit => f.write_str("simulated time limit reached"),
            Why::EventLimit => f.write_str("limit of the world's events reached"),
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.why, SimTime::from_nanos(crate::time::nanos(self.sim_elapsed)))
    }
}

impl std::error::Error for Failed {}

/// Runs `f` in a world of its own until its future is ready. May be called on several threads at once, but not from
/// inside a world.
pub fn on_seed<F, Fut, T>(config: Config, f: F) -> Result<Finished<T>, Failed>
where
    F: FnOnce(World) -> Fut + Send,
    Fut: Future<Output = T>,
    T: Send,
{
    assert!(!kernel::active(), "a world cannot be started inside a world");
    warm_up();
    // The caller's subscriber, for the runtime's own spans too: one made under another subscriber would be unknown here.
    let logging = tracing::dispatcher::get_default(Clone::clone);
    std::thread::scope(|scope| {
        let name = format!("seed {}/{}", config.world_seed, config.schedule_seed);
        // Deep futures of a debug build need room; untouched pages cost nothing.
        let thread = std::thread::Builder::new().name(name).stack_size(32 << 20);
        match thread
            .spawn_scoped(scope, move || tracing::dispatcher::with_default(&logging, || run(&config, f)))
            .map(std::thread::ScopedJoinHandle::join)
        {
            Ok(Ok(out)) => out,
            Ok(Err(payload)) => std::panic::resume_unwind(payload),
            Err(e) => panic!("failed to start a thread for the seed: {e}"),
        }
    })
}

thread_local! {
    /// The last panic of this thread, with its place: the payload alone does not hold it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn run<F, Fut, T>(config: &Config, f: F) -> Result<Finished<T>, Failed>
where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = T>,
{
    let runtime = madsim::runtime::Runtime::with_seed_and_config(config.schedule_seed, madsim::Config::default());
    // Outside the future, so that it can be dropped inside the world even after a panic in another task.
    let main: Slot<Fut> = RefCell::new(None);
    let kernel: RefCell<Option<Rc<Kernel>>> = RefCell::new(None);
    let body = async {
        let k = Kernel::new(config);
        kernel::install(Some(Rc::clone(&k)));
        *kernel.borrow_mut() = Some(Rc::clone(&k));
        madsim::task::spawn_local(agenda::drive(Rc::clone(&k)));
        *main.borrow_mut() = Some(Box::pin(f(World::new(Rc::clone(&k), config.clone()))));
        poll_fn(|cx| {
            k.set_main(cx.waker());
            if k.limit_reached.get() {
                return Poll::Ready(None);
            }
            match &mut *main.borrow_mut() {
                Some(future) => future.as_mut().poll(cx).map(Some),
                None => Poll::Pending,
            }
        })
        .await
    };
    let out = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
    let panic = PANIC.with(RefCell::take);
    let kernel = kernel.into_inner().expect("the kernel is made before anything can fail");
    let node = kernel::take_failing();
    let run = {
        let mut state = kernel.state.borrow_mut();
        Box::new(Run {
            trace_hash: state.trace.hash(),
            sim_elapsed: kernel.time.elapsed(),
            events: state.trace.count(),
            effects: state.effects.0.clone(),
            trace: state.trace.take(),
            story: state.story.take(),
        })
    };
    let limit = kernel.limit_reached.get();
    let reached = if run.events >= config.event_limit { Why::EventLimit } else { Why::TimeLimit };
    tear_down(&runtime, &kernel, &main);
    let why = match out {
        Ok(Some(value)) => return Ok(Finished { value, run }),
        Ok(None) => reached,
        Err(_) if limit => reached,
        Err(payload) => {
            let message = panic.unwrap_or_else(|| text(&*payload));
            if message.starts_with("no events, all tasks will block forever") {
                Why::Deadlock
            } else {
                let node = node.filter(|c| c.node != WORLD.node);
                let name = node.map(|c| kernel.state.borrow().nodes[c.node as usize].name.to_string());
                Why::Panic { message, node: name }
            }
        }
    };
    Err(Failed { why, run })
}

type Slot<Fut> = RefCell<Option<Pin<Box<Fut>>>>;

/// Kills every node and steps, so that all tasks and what they hold are freed. Destructors run inside the world and
/// find themselves dead.
fn tear_down<Fut>(runtime: &madsim::runtime::Runtime, kernel: &Rc<Kernel>, main: &Slot<Fut>) {
    kernel.close();
    let step = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            kernel.drop_tasks();
            let main = main.try_borrow_mut().ok().and_then(|mut m| m.take());
            drop(main);
            for _ in 0..2 {
                madsim::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }));
    PANIC.with(RefCell::take);
    if step.is_err() {
        tracing::warn!("a destructor panicked while the world was taken down");
    }
    kernel::install(None);
}

fn text(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(s), _) => (*s).to_owned(),
        (_, Some(s)) => s.clone(),
        _ => "a payload that is not text".to_owned(),
    }
}

/// Runs every initialiser that runs once a process and might draw, outside any world; and makes panics inside worlds
/// into reports instead of output.
fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = std::hash::RandomState::new();
        // A run of the simulator itself fills its statics (the libc symbols behind its interposition).
        let thread = std::thread::spawn(|| {
            let runtime = madsim::runtime::Runtime::with_seed_and_config(0, madsim::Config::default());
            runtime.block_on(async {
                let (tx, rx) = tokio::sync::oneshot::channel();
                let _ = tx.send(std::time::SystemTime::now());
                let _ = rx.await;
                madsim::time::sleep(Duration::from_millis(1)).await;
            });
        });
        let _ = thread.join();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !kernel::active() {
                return before(info);
            }
            kernel::note_failing();
            let place = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
            let message = format!("{}{place}", text(info.payload()));
            PANIC.with(|p| p.try_borrow_mut().map(|mut p| p.get_or_insert(message).len()).ok());
        }));
    });
}
