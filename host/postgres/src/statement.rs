//! The SQL that a handler may use: one statement that begins with a keyword of the contract. Which tables it
//! may touch is decided by the role that it logs in with.

use switchboard_core::limits;

/// Text that begins with SELECT, INSERT, UPDATE, DELETE, MERGE, WITH or VALUES, within its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement<'a> {
    pub text: &'a str,
    /// True when a lost answer leaves no doubt about the outcome. False for WITH, which may contain an
    /// INSERT.
    pub reads: bool,
}

impl<'a> Statement<'a> {
    /// Checks size and first keyword. An error says what was expected.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        if text.len() > limits::STATEMENT_BYTES_MAX {
            return Err(format!("a statement has at most {} bytes", limits::STATEMENT_BYTES_MAX));
        }
        let word = first_word(text);
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        if is("select") || is("values") {
            Ok(Self { text, reads: true })
        } else if ["insert", "update", "delete", "merge", "with"].into_iter().any(is) {
            Ok(Self { text, reads: false })
        } else {
            Err("a statement begins with SELECT, INSERT, UPDATE, DELETE, MERGE, WITH or VALUES".to_owned())
        }
    }
}

/// The first word after blanks and comments. Empty when the text does not begin with a word.
fn first_word(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = after_block_comment(rest);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// Skips a block comment. Block comments nest in Postgres; one that does not end covers the rest of the text.
fn after_block_comment(text: &str) -> &str {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_begin_with_a_word_of_the_contract() {
        for (good, reads) in [
            ("select 1", true),
            ("  \n\tVALUES (1)", true),
            ("-- why\nselect 1", true),
            ("/* a /* nested */ one */ -- and\r\n Insert into t values (1)", false),
            ("with x as (select 1) select * from x", false),
            ("merge into t using s on true when matched then do nothing", false),
            ("select(1)", true),
        ] {
            assert_eq!(Statement::parse(good).unwrap().reads, reads, "{good}");
        }
        for bad in [
            "",
            ";select 1",
            "set role postgres",
            "begin",
            "selects",
            "/* select 1",
            "/* /* */ select 1",
            "-- select 1",
            "/**/set x = 1",
            "(select 1)",
            "\u{a0}copy t to stdout",
            "do $$ begin end $$",
            "listen x",
            "explain select 1",
            "call f()",
        ] {
            assert!(Statement::parse(bad).is_err(), "{bad}");
        }
        let long = format!("select '{}'", "x".repeat(limits::STATEMENT_BYTES_MAX));
        assert!(Statement::parse(&long).is_err());
    }
}
