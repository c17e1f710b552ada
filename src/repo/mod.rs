//! The repository: everything between single objects in a store and whole operations.

pub mod index;
