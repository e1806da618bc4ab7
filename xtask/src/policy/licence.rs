//! SPDX licence expressions: is a set of allowed licences enough?

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Nesting that no honest expression reaches.
const DEPTH: usize = 32;

/// Whether one may use a package under `expression` while accepting only `allowed`. Understands `AND`,
/// `OR`, the old `/` for `OR`, parentheses and `WITH`; a licence with an exception must be allowed
/// as such, e.g. "Apache-2.0 WITH LLVM-exception".
pub fn satisfies(expression: &str, allowed: &BTreeSet<String>) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        tokens: &tokens,
        allowed,
    };
    let satisfied = parser.alternatives(0)?;
    if let Some(token) = parser.tokens.first() {
        bail!("unexpected {token} in licence expression {expression}");
    }
    Ok(satisfied)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl Parser<'_> {
    fn alternatives(&mut self, depth: usize) -> Result<bool> {
        let mut satisfied = self.conjunction(depth)?;
        while self.take("OR") {
            satisfied |= self.conjunction(depth)?;
        }
        Ok(satisfied)
    }

    fn conjunction(&mut self, depth: usize) -> Result<bool> {
        let mut satisfied = self.licence(depth)?;
        while self.take("AND") {
            satisfied &= self.licence(depth)?;
        }
        Ok(satisfied)
    }

    fn licence(&mut self, depth: usize) -> Result<bool> {
        if depth > DEPTH {
            bail!("licence expression nested deeper than {DEPTH}");
        }
        if self.take("(") {
            let satisfied = self.alternatives(depth + 1)?;
            if !self.take(")") {
                bail!("missing ) in licence expression");
            }
            return Ok(satisfied);
        }
        let mut name = self.word()?.to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.word()?);
        }
        Ok(self.allowed.contains(&name))
    }

    fn word(&mut self) -> Result<&str> {
        match self.tokens.split_first() {
            Some((word, rest)) if !["AND", "OR", "WITH", "(", ")"].contains(word) => {
                self.tokens = rest;
                Ok(word)
            }
            _ => bail!("a licence is missing in the expression"),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if *first == token => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn satisfied(expression: &str) -> bool {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        satisfies(expression, &allowed.map(str::to_owned).into()).unwrap()
    }

    #[test]
    fn expressions_mean_what_spdx_says() {
        assert!(satisfied("MIT"));
        assert!(satisfied("GPL-3.0 OR MIT"));
        assert!(satisfied("Unlicense/MIT"));
        assert!(satisfied("(MIT OR GPL-3.0) AND Apache-2.0"));
        assert!(satisfied("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
        assert!(!satisfied("GPL-3.0"));
        assert!(!satisfied("MIT AND GPL-3.0"));
        assert!(!satisfied("GPL-3.0 WITH LLVM-exception"));
        assert!(!satisfied("MIT AND (GPL-3.0 OR LGPL-2.1)"));
    }

    #[test]
    fn broken_expressions_are_refused() {
        let allowed = BTreeSet::new();
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND"] {
            assert!(satisfies(broken, &allowed).is_err(), "{broken}");
        }
        assert!(satisfies(&"(".repeat(100_000), &allowed).is_err());
    }
}
