//! What somebody tries who means harm, on the real binary. SECURITY.md says which line is whose.

mod answers;
mod crash;
mod records;
mod secrets;
