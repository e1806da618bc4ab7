//! Sources, through the public interface.
