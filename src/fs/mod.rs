//! Files: reading a source, writing a target.
