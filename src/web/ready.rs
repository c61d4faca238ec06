//! `/readyz`: whether everything does what it is there for.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
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

/// Ready when there are lanes, each of them runs or has ended as it was asked to, and every lookup has been loaded. Whoever has no token
/// hears only that.
pub(super) async fn readyz(
    State(state): State<WebState>,
    State(access): State<Access>,
    headers: HeaderMap,
) -> (StatusCode, Json<Ready>) {
    let answer = look(state.snapshot());
    let code = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = if access.is_known(&headers) { answer } else { Ready { ready: answer.ready, ..Ready::default() } };
    (code, Json(answer))
}

fn look(Snapshot { lanes, lookups, .. }: Snapshot) -> Ready {
    let any = !lanes.is_empty();
    let unready: BTreeMap<_, _> = lanes
        .into_iter()
        .filter(|lane| !matches!(lane.state, LaneState::Running | LaneState::Done))
        .map(|lane| (lane.name, Unready { state: lane.state, waits_for: lane.waits_for, error: lane.error }))
        .collect();
    let lookups: BTreeMap<_, _> =
        lookups.into_iter().filter(|lookup| lookup.loaded_ms == 0).map(|lookup| (lookup.name, lookup.trouble)).collect();
    Ready { ready: any && unready.is_empty() && lookups.is_empty(), lanes: unready, lookups }
}
