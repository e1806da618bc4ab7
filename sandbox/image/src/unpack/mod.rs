//! From a layer's tar stream to a directory.
