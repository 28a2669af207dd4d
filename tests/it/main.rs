//! The product through its protocol, as one binary: linking is the slow part.
