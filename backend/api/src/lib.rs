//! What a virtual machine backend is: the trait, its capabilities and the suite every backend passes.
