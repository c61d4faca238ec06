//! falaj
