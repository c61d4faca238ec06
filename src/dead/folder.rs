//! Dead letters in a local folder.
