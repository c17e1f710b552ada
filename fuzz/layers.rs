//! The pure layers of backstay and its boundary to files, from the main crate's own files.
//!
//! They compile without the rest because a module imports only from layers below its own.

#[path = "../src/compress.rs"]
pub mod compress;
#[path = "../src/crypto/mod.rs"]
pub mod crypto;
#[path = "../src/entry_name.rs"]
pub mod entry_name;
#[path = "../src/env.rs"]
pub mod env;
#[path = "../src/error.rs"]
pub mod error;
#[path = "../src/extent.rs"]
pub mod extent;
#[path = "../src/format/mod.rs"]
pub mod format;
#[path = "../src/fs/mod.rs"]
pub mod fs;
#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/limits.rs"]
pub mod limits;
#[path = "../src/observe.rs"]
pub mod observe;
#[path = "../src/seal.rs"]
pub mod seal;

#[path = "."]
pub mod store {
    //! Names of objects, which errors about sealed objects bear.
    #[path = "../src/store/name.rs"]
    mod name;

    pub use name::ObjectName;
}

#[path = "."]
pub mod repo {
    //! Of the repository only what opens a sealed object.
    #[path = "../src/repo/sealed.rs"]
    pub mod sealed;
}
