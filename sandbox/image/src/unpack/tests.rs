//! Unpacking, one behaviour a test.
