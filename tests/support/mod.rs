//! What several test modules use.

pub(crate) mod falaj;
pub(crate) mod proxy;
