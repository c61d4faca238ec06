//! Epochs into transactions: looked up before they are repeated, so that each is there once.

use std::sync::Arc;

use super::{Place, Session};
use crate::error::{Error, Kind, Result};

/// The transactions of one place.
///
/// A broker that is away makes `write` fail with `Unreachable`; calling it again with the same epoch is right. A write whose end
/// is not known is looked up before it is repeated.
#[derive(Default)]
pub(crate) struct Transactions {
    place: Option<Arc<Place>>,
    /// `None` after an error: the next write begins with `init_transactions`.
    session: Option<Box<Session>>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Whether the epoch was held already.
    pub(crate) held_before: bool,
    /// Attempts beyond the first.
    pub(crate) retries: u64,
}

impl Transactions {
    /// Claims `place`, and says the last epoch that it holds. `Err(Fenced)`: a newer claim is there.
    pub(crate) async fn open(&mut self, place: Place) -> Result<Option<u64>> {
        forget(self.session.take());
        self.place = Some(Arc::new(place));
        let session = self.session().await?;
        let held = session.held();
        self.session = Some(session);
        Ok(held)
    }

    /// Writes `epoch` unless it is held. `attempt` does it by [`Session::write`] on a thread that may block (see [`blocking`]),
    /// and gives the session back; it is called a second time only when it is known that the first has left nothing.
    pub(crate) async fn write<Fut>(&mut self, epoch: u64, mut attempt: impl FnMut(Box<Session>) -> Fut) -> Result<Written>
    where
        Fut: Future<Output = Result<Box<Session>>>,
    {
        let mut retries = 0;
        loop {
            let session = self.session().await?;
            if session.held().is_some_and(|held| held >= epoch) {
                self.session = Some(session);
                return Ok(Written { held_before: retries == 0, retries });
            }
            match attempt(session).await {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(Written { held_before: false, retries });
                }
                // Once: a new claim says whether the epoch was written after all, and whether somebody newer is here.
                Err(error) if retries == 0 && matches!(error.kind(), Kind::Unreachable | Kind::Fenced) => {
                    tracing::debug!(epoch, error = error.chain(), "Kafka: looking what was written");
                    retries = 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what [`Self::write`] will commit; `attempt` does it by [`Session::send_ahead`]. What fails here and may be tried again is
    /// done by `write`.
    pub(crate) async fn send_ahead<Fut>(&mut self, epoch: u64, attempt: impl FnOnce(Box<Session>) -> Fut) -> Result<()>
    where
        Fut: Future<Output = Result<Box<Session>>>,
    {
        // A new claim belongs to `write`, which looks what is held.
        let Some(session) = self.session.take_if(|session| session.held().is_none_or(|held| held < epoch)) else {
            return Ok(());
        };
        match attempt(session).await {
            Ok(session) => self.session = Some(session),
            Err(error) if matches!(error.kind(), Kind::Unreachable | Kind::Fenced) => {
                tracing::debug!(epoch, error = error.chain(), "Kafka: could not send ahead");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The claim as it stands, or a new one.
    async fn session(&mut self) -> Result<Box<Session>> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Some(place) = self.place.clone() else {
            return Err(Error::new(Kind::Bug, "something was written to Kafka before its place was opened"));
        };
        blocking(move || Session::open(place).map(Box::new)).await
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        forget(self.session.take());
    }
}

/// Closes connections on a thread of their own: closing them waits for their threads.
fn forget(session: Option<Box<Session>>) {
    if let Some(session) = session {
        // Without a thread to spare the closure is dropped here, and the session with it.
        let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(session));
    }
}

/// Runs what waits for the broker where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => Err(Error::new(Kind::Bug, "writing to Kafka was cut off").because(cause)),
    }
}
