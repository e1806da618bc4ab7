//! Sources of images.
