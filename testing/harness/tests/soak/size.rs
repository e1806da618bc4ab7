//! How much of everything.

/// How often things are done.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Containers at the same time.
    pub parallel: usize,
    /// How often all of them.
    pub rounds: usize,
    /// Containers one after the other.
    pub row: usize,
    /// Containers that come to one pod and go, one after the other.
    pub pod: usize,
}

/// What takes minutes.
const FULL: Size = Size {
    parallel: 30,
    rounds: 5,
    row: 200,
    pod: 200,
};

/// What every run of all tests does.
const QUICK: Size = Size {
    parallel: 30,
    rounds: 1,
    row: 20,
    pod: 30,
};

/// For what only proves the case.
const REFERENCE: Size = Size {
    parallel: 10,
    rounds: 1,
    row: 10,
    pod: 10,
};

impl Size {
    /// As `COFFERDAM_TEST_SOAK` says; `reference`: of the runtime that proves the cases.
    pub fn asked(reference: bool) -> Self {
        let full = std::env::var_os("COFFERDAM_TEST_SOAK").is_some_and(|word| word == "full");
        match (full, reference) {
            (true, _) => FULL,
            (false, true) => REFERENCE,
            (false, false) => QUICK,
        }
    }
}
