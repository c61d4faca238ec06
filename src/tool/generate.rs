//! `falaj generate`: tables, content and events.
