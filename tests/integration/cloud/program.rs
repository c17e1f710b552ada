//! The whole program over servers.
