//! The decisions of the handler. Pure: no host calls, so plain `cargo test` runs it.

/// A greeting with a word and a name.
pub fn greeting(word: &str, who: &str) -> String {
    format!("{word} {who}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        assert_eq!(greeting("hello", "ana"), "hello ana");
    }
}
