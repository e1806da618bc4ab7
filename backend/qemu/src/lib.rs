//! The QEMU backend: microvm under TCG or KVM.
