//! What several test modules use.

pub(crate) mod falaj;
pub(crate) mod hostile;
pub(crate) mod kafka;
pub(crate) mod project;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod s3;
