//! `falaj receive`: stands for the external HTTP system.
