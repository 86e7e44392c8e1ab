//! A few threads for work that takes a processor: hashing, decoding, scaling.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use crate::problem::Problem;

/// Jobs at work at once. Each may hold one decoded image, so this bounds memory
/// as well as processors.
const MAX_JOBS: usize = 2;

/// How long a request waits for its job, the wait for a free worker included.
const JOB_TIME: Duration = Duration::from_secs(30);

/// The bounded workers.
#[derive(Debug)]
pub(super) struct Workers(Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_JOBS)))
    }
}

impl Workers {
    /// Runs `job` once a worker is free. A job whose request is gone is not
    /// begun, but one that has begun keeps its worker until it ends.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let worker = Arc::clone(&self.0).acquire_owned().await;
        let worker = worker.expect("the semaphore is never closed");
        on_disk(move || {
            let _worker = worker;
            job()
        })
        .await
    }
}

/// Runs short work on the file system where it may block.
pub(super) async fn on_disk<T, F>(work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let failed = |error: JoinError| Problem::internal("working on an image", &error);
    spawn_blocking(work).await.map_err(failed)
}

/// Gives `answer` its time; an overloaded server says so instead of queueing on.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = |_| Err(Problem::busy("too many images are being worked on"));
    timeout(JOB_TIME, answer).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn no_more_jobs_run_at_once_than_there_are_workers() {
        let (workers, running) = (Workers::default(), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..20).map(|_| {
            let running = Arc::clone(&running);
            workers.run(move || {
                let now = running.fetch_add(1, SeqCst) + 1;
                std::thread::yield_now();
                running.fetch_sub(1, SeqCst);
                now
            })
        });
        for now in join_all(jobs).await {
            assert!(now.unwrap() <= MAX_JOBS);
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_frees_its_worker() {
        let workers = Workers::default();
        for _ in 0..=MAX_JOBS {
            assert!(workers.run(|| panic!("a decoder's bug")).await.is_err());
        }
        assert_eq!(workers.run(|| 1).await, Ok(1));
    }
}
