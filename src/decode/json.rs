//! Decodes JSON.
