//! Ctrl-C and SIGTERM: the first asks to stop and keep what is finished, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// Whether the user asked to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on, on a thread of its own.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let flag = Self::default();
        let shared = flag.clone();
        let (ready, installed) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let outcome = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
                let _guard = runtime.enter();
                let interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
                let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                drop(_guard);
                Ok((runtime, interrupt, terminate))
            });
            let (runtime, mut interrupt, mut terminate) = match outcome {
                Ok(all) => all,
                Err(e) => return drop(ready.send(Err(e))),
            };
            let _ = ready.send(Ok(()));
            runtime.block_on(async {
                // Not the flag: a worker that was told first may have set it.
                let mut heard = false;
                loop {
                    tokio::select! {
                        biased;
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if heard {
                        std::process::exit(i32::from(Exit::Interrupted.code()));
                    }
                    heard = true;
                    shared.set();
                }
            });
        })?;
        installed.recv().map_err(std::io::Error::other)??;
        Ok(flag)
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// As if the user had asked.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
