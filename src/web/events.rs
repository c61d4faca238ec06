//! `/api/v1/events`: the status as server-sent events. One task looks for all visitors; each gets the newest look when it can take it,
//! so a slow one misses some, and holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::WebState;
use crate::error::Result;

/// Pages that may be open at once: more than a team looks at, and far fewer than connections.
pub(super) const STREAMS_MAX: usize = 64;
/// How often a page hears something, also when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The streams of all visitors.
pub(super) struct Events {
    /// The newest event; empty before the first, and when there will be none any more.
    newest: watch::Sender<Bytes>,
    free: Arc<Semaphore>,
}

impl Default for Events {
    fn default() -> Self {
        Self { newest: watch::Sender::new(Bytes::new()), free: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

impl Events {
    /// Ends all streams.
    pub(super) fn end(&self) {
        self.newest.send_replace(Bytes::new());
    }
}

/// Looks for all visitors, for ever. Without visitors only the history is kept.
pub(super) async fn look(state: WebState) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.note();
        let events = state.events();
        if events.newest.receiver_count() > 0
            && let Ok(answer) = state.answer()
        {
            events.newest.send_replace(event("status", &answer));
        }
    }
}

/// The history, the status, and then the status again and again.
pub(super) async fn events(State(state): State<WebState>) -> Response {
    let events = state.events();
    let Ok(permit) = Arc::clone(&events.free).try_acquire_owned() else {
        let text = format!("{STREAMS_MAX} pages are open already: close one, or ask /api/v1/status\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    match first(&state) {
        Ok(first) => {
            let later = stream::unfold((events.newest.subscribe(), permit), next);
            let body = stream::iter(first).chain(later).map(Ok::<_, std::convert::Infallible>);
            ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error.chain())).into_response(),
    }
}

fn first(state: &WebState) -> Result<[Bytes; 2]> {
    Ok([event("history", &state.points()?), event("status", &state.answer()?)])
}

type Visitor = (watch::Receiver<Bytes>, OwnedSemaphorePermit);

async fn next((mut newest, permit): Visitor) -> Option<(Bytes, Visitor)> {
    newest.changed().await.ok()?;
    let event = newest.borrow_and_update().clone();
    (!event.is_empty()).then_some((event, (newest, permit)))
}

/// JSON has no line breaks as it is written here, so it is one line of the event.
fn event(name: &str, json: &[u8]) -> Bytes {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat().into()
}
