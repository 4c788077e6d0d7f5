//! Tasks that end with their owner.

use env::task::JoinHandle;

/// Dropping it aborts every task in it.
#[derive(Debug, Default)]
pub(crate) struct TaskSet(Vec<JoinHandle<()>>);

impl TaskSet {
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.0.retain(|t| !t.is_finished());
        self.0.push(env::task::spawn(future));
    }

    /// Aborts every task; none runs any more when it returns.
    pub async fn stop(mut self) {
        for task in &self.0 {
            task.abort();
        }
        for task in std::mem::take(&mut self.0) {
            let _ = task.await;
        }
    }
}

impl Drop for TaskSet {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
