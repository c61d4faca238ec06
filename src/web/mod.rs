//! Our own HTTP: the page, health and status.
