//! Container images: stores, archives, registries and unpacking.
