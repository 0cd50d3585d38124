//! Panics, caught at the edge of a task and told with their text. That of an engine costs only that engine (`supervise.rs`). A task without
//! which this process does not do its work (notifier, API, metrics, the watcher of definitions, our own lag) ends the process when it ends:
//! systemd starts it anew, and what it knew is in the journal. None of them is ever missing in silence.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use cpe_proto::observation::detail;
use tokio::sync::mpsc;

/// Does the work; its panic is the error, as one line. What the work shares with others must bear that it stopped anywhere.
///
/// # Errors
/// What was said in the panic.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Box<str>> {
    let mut work = pin!(work);
    poll_fn(|context| match catch(|| work.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(said) => Poll::Ready(Err(said)),
    })
    .await
}

/// As [`caught`], for what does not wait.
///
/// # Errors
/// What was said in the panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Box<str>> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| said(&*payload))
}

fn said(payload: &(dyn Any + Send)) -> Box<str> {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    detail(text.unwrap_or("a panic without a text"))
}

/// The tasks without which the process does not do its work. Clones are of the same ones.
#[derive(Clone, Debug)]
pub struct Vital(mpsc::Sender<String>);

/// Which of them ended first.
#[derive(Debug)]
pub struct Failures(mpsc::Receiver<String>);

impl Vital {
    /// None yet.
    #[must_use]
    pub fn new() -> (Self, Failures) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), Failures(receiver))
    }

    /// Starts one that should never end. `name` goes after "the", as "journal's writer".
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let failed = self.0.clone();
        tokio::spawn(async move {
            let what = match caught(work).await {
                Ok(()) => format!("the {name} has ended"),
                Err(said) => format!("the {name} panicked: {said}"),
            };
            // The first is told; and when the process ends anyway, nobody listens any more.
            let _ = failed.try_send(what);
        });
    }
}

impl Failures {
    /// Waits until one has ended, and says which and why.
    pub async fn first(&mut self) -> String {
        match self.0.recv().await {
            Some(what) => what,
            // Nobody can fail any more.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_by_its_text_on_one_line_whatever_it_was_thrown_with() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let line = caught(async { panic!("index {} out of\nbounds", 3) }).await;
        assert_eq!(line, Err::<(), _>("index 3 out of bounds".into()));
        let odd = caught(async { std::panic::panic_any(7_u8) }).await;
        assert_eq!(odd, Err::<(), _>("a panic without a text".into()));
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_or_just_ends_is_told_and_one_that_lives_is_not() {
        let (vital, mut failures) = Vital::new();
        vital.spawn("watcher", std::future::pending());
        vital.spawn("notifier", async { panic!("no desk") });
        assert_eq!(failures.first().await, "the notifier panicked: no desk");
        vital.spawn("API", async {});
        assert_eq!(failures.first().await, "the API has ended");
    }
}
