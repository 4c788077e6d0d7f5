//! What a worker's tasks count. Counters go on over the attempts that this worker sees; a watermark is told only while its
//! task runs here, so that the minimum over workers means something.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use metrics::{Counter, Snapshot};

use crate::watermark::Watermark;

/// The tasks of one worker. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct WorkerMetrics(Rc<RefCell<BTreeMap<String, Rc<TaskMetrics>>>>);

#[derive(Debug, Default)]
pub(crate) struct TaskMetrics {
    pub records_in: Counter,
    pub rows_out: Counter,
    pub late: Counter,
    pub dead_letters: Counter,
    running: Cell<usize>,
    watermark: Cell<Option<Watermark>>,
}

impl TaskMetrics {
    pub fn watermark(&self, now: Watermark) {
        self.watermark.set(Some(now));
    }

    pub fn runs(self: &Rc<Self>) -> RunningTask {
        self.running.set(self.running.get() + 1);
        RunningTask(Rc::clone(self))
    }
}

/// One task, for as long as it runs.
#[derive(Debug)]
pub(crate) struct RunningTask(Rc<TaskMetrics>);

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.watermark.set(None);
    }
}

impl WorkerMetrics {
    pub(crate) fn task(&self, name: &str) -> Rc<TaskMetrics> {
        Rc::clone(self.0.borrow_mut().entry(name.to_owned()).or_default())
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut out = Snapshot::default();
        for (task, m) in self.0.borrow().iter() {
            let labels: metrics::Labels<'_> = &[("task_name", task)];
            for (name, help, counter) in [
                ("flink_taskmanager_job_task_numrecordsin_total", "Records taken in", &m.records_in),
                ("flink_taskmanager_job_task_numrecordsout_total", "Rows written", &m.rows_out),
                ("flink_taskmanager_job_task_numlaterecords_total", "Records sent to the late topic", &m.late),
                (
                    "flink_taskmanager_job_task_numdeadletters_total",
                    "Records that could not be read, sent to the dead-letter topic",
                    &m.dead_letters,
                ),
            ] {
                out.counter(name, help, labels, counter.get());
            }
            let running = i64::from(m.running.get() > 0);
            out.gauge("flink_taskmanager_job_task_running", "1 while the task runs here", labels, running);
            if let Some(watermark) = m.watermark.get() {
                let help = "Event time in milliseconds below which the task expects no more records";
                out.gauge("flink_taskmanager_job_task_currentwatermark", help, labels, watermark.as_ms());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_attempts_and_watermarks_do_not() {
        let worker = WorkerMetrics::default();
        let task = worker.task("source-0");
        let running = task.runs();
        task.records_in.add(3);
        task.watermark(Watermark::from_ms(500));
        let text = worker.snapshot().render();
        assert!(text.contains("flink_taskmanager_job_task_currentwatermark{task_name=\"source-0\"} 500\n"), "{text}");
        drop(running);
        let text = worker.snapshot().render();
        assert!(!text.contains("currentwatermark"), "{text}");
        assert!(text.contains("numrecordsin_total{task_name=\"source-0\"} 3\n"), "{text}");
        assert!(text.contains("task_running{task_name=\"source-0\"} 0\n"), "{text}");
    }
}
