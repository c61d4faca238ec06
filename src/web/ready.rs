//! `/readyz`: whether everything does what it is there for.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Access, WebState};
use crate::status::{LaneState, Snapshot};

#[derive(Default, Serialize)]
pub(super) struct Ready {
    ready: bool,
    /// The lanes that do not run, with what they do instead.
    lanes: BTreeMap<String, Unready>,
    /// The lookups that were never loaded, with the reason if there is one: lanes that ask them wait.
    lookups: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct Unready {
    state: LaneState,
    waits_for: Option<String>,
    error: Option<String>,
}

/// Whoever has no token hears only whether it is ready.
pub(super) async fn readyz(State(state): State<WebState>, State(access): State<Access>, headers: HeaderMap) -> Response {
    let ready = match state.ready() {
        Ok(ready) => ready,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error.chain())).into_response(),
    };
    let code = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match access.is_known(&headers) {
        true => (code, Json(&*ready)).into_response(),
        false => (code, Json(Ready { ready: ready.ready, ..Ready::default() })).into_response(),
    }
}

impl Ready {
    /// Ready when there are lanes, each of them runs or has ended as it was asked to, and every lookup has been loaded.
    pub(super) fn of(Snapshot { lanes, lookups, .. }: Snapshot) -> Self {
        let any = !lanes.is_empty();
        let unready: BTreeMap<_, _> = lanes
            .into_iter()
            .filter(|lane| !matches!(lane.state, LaneState::Running | LaneState::Done))
            .map(|lane| (lane.name, Unready { state: lane.state, waits_for: lane.waits_for, error: lane.error }))
            .collect();
        let lookups: BTreeMap<_, _> =
            lookups.into_iter().filter(|lookup| lookup.loaded_ms == 0).map(|lookup| (lookup.name, lookup.trouble)).collect();
        Self { ready: any && unready.is_empty() && lookups.is_empty(), lanes: unready, lookups }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::status::Status;

    #[test]
    fn ready_is_when_every_lane_runs_or_is_done_and_every_lookup_is_loaded() {
        let status = Status::default();
        let is_ready = || Ready::of(status.snapshot()).ready;
        assert!(!is_ready());
        let (one, two) = (status.lane("one"), status.lane("two"));
        one.set_state(LaneState::Running);
        two.set_trouble(None, Some("Redis at localhost:6379".to_string()));
        let unready = Ready::of(status.snapshot());
        assert!(!unready.ready && !unready.lanes.contains_key("one"));
        assert_eq!(unready.lanes["two"].waits_for.as_deref(), Some("Redis at localhost:6379"));
        two.set_state(LaneState::Running);
        assert!(is_ready());
        two.set_state(LaneState::Done);
        assert!(is_ready());
        let lookup = status.lookup("content");
        lookup.set_trouble(Some("Postgres is away".to_string()));
        let unready = Ready::of(status.snapshot());
        assert_eq!((unready.ready, unready.lookups["content"].as_deref()), (false, Some("Postgres is away")));
        lookup.loaded_ms.store(1, Ordering::Relaxed);
        assert!(is_ready());
        two.set_state(LaneState::Stopped);
        assert!(!is_ready());
    }
}
