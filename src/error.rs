//! Everything that can go wrong, each with the message that its user reads.

/// Why a call was refused, or did not finish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A shape or a value that the call cannot take; Python's ValueError.
    #[error("{0}")]
    Value(String),
    /// An element type that the call cannot take; Python's TypeError.
    #[error("{0}")]
    Type(String),
    /// A class index outside the classes; Python's IndexError.
    #[error("{0}")]
    Index(String),
    /// So many bytes of memory could not be had; Python's MemoryError. The outputs are undefined.
    #[error("out of memory: {0} more bytes could not be had")]
    Memory(usize),
    /// The caller's interrupt hook asked to stop; the outputs are undefined.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;
