//! How the receiver misbehaves when it is told to.

use std::str::FromStr;
use std::time::Duration;

use axum::http::StatusCode;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::ReceiveArgs;

/// What to do wrong; by default nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Percent of the requests that are answered with 500, without doing anything.
    pub fail: f64,
    /// The status that every request is answered with, without doing anything.
    pub status: Option<u16>,
    /// How many requests get that status; `None`: all.
    pub times: Option<u64>,
    /// `Retry-After` beside that status, in seconds.
    pub retry_after: Option<u64>,
    /// How long to wait before each answer.
    pub slow: Option<Duration>,
    /// Percent of the requests that are taken, whereupon the connection is closed without an answer.
    pub cut: f64,
    /// A request that has such a row is answered with 400.
    pub refuse: Option<FieldValue>,
    /// What the dice begin with.
    pub seed: u64,
    /// Whether each row is printed.
    pub print: bool,
}

impl From<ReceiveArgs> for Faults {
    fn from(args: ReceiveArgs) -> Self {
        let ReceiveArgs { bind: _, fail, status, times, retry_after, slow, cut, refuse, seed, print } = args;
        Self { fail, status, times, retry_after, slow, cut, refuse, seed, print }
    }
}

/// A field and the text or number that it has, from `FIELD=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue {
    /// The field's name.
    pub field: String,
    /// Its value: the text itself, or the number as it is written.
    pub value: String,
}

impl FromStr for FieldValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text.split_once('=').ok_or("it must be like 'id=42'")?;
        Ok(Self { field: field.into(), value: value.into() })
    }
}

/// Decides for each request, from a seed.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    random: Xoshiro256PlusPlus,
    statuses: u64,
}

/// What happens to one request.
#[derive(Debug)]
pub(super) struct Throw {
    pub(super) slow: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<u64>,
    pub(super) cut: bool,
    pub(super) refuse: Option<FieldValue>,
    pub(super) print: bool,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(faults.seed), faults, statuses: 0 }
    }

    pub(super) fn throw(&mut self) -> Throw {
        // Both are thrown each time, so that one option does not change what the other meets.
        let fails = self.random.random::<f64>() * 100.0 < self.faults.fail;
        let cut = self.random.random::<f64>() * 100.0 < self.faults.cut;
        let fixed = self.faults.status.filter(|_| self.faults.times.is_none_or(|times| self.statuses < times));
        self.statuses += u64::from(fixed.is_some());
        let status =
            fixed.or(fails.then_some(500)).map(|code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        Throw {
            slow: self.faults.slow,
            status,
            retry_after: fixed.and(self.faults.retry_after),
            cut,
            refuse: self.faults.refuse.clone(),
            print: self.faults.print,
        }
    }
}
