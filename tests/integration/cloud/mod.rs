//! Stores on servers: their contract, the whole program over them, and what goes wrong on the way.

mod conformance;
mod external;
mod far;
mod faults;
mod garage;
mod link;
mod measure;
mod program;
mod server;
mod sftp;
mod speed;
