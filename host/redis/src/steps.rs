//! Puts a call of `switchboard_step()` at the beginning of every loop body and every function of a Lua text.
//! No other Lua construct runs for long, so a script can end itself after a number of steps. Redis cannot end
//! a script that has written. Pure. The code knows the tokens of Lua 5.1, not its grammar, and keeps every
//! line number.

/// The function that `prelude` gives to scripts.
const STEP: &str = "switchboard_step();";
/// A reserved name: a script that could use it could replace the function.
const RESERVED: &str = "switchboard_step";

pub(super) fn counted(text: &str) -> String {
    let mut counted = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    // True after `function`, until its parameters end.
    let mut in_parameters = false;
    while let Some(token) = Token::first(rest) {
        let (text, after) = rest.split_at(token.length);
        rest = after;
        counted.push_str(text);
        match (token.kind, text) {
            (Kind::Word, "do" | "repeat") => counted.push_str(&format!(" {STEP}")),
            (Kind::Word, "function") => in_parameters = true,
            // This is not Lua, so Redis refuses it when it compiles the script.
            (Kind::Word, RESERVED) => counted.push_str(" is a reserved name"),
            (Kind::Other, ")") if in_parameters => {
                in_parameters = false;
                counted.push_str(&format!(" {STEP}"));
            }
            _ => {}
        }
    }
    counted
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A name, a keyword or a number.
    Word,
    /// A string or a comment: its content is not code.
    Quoted,
    /// One character.
    Other,
}

struct Token {
    kind: Kind,
    length: usize,
}

impl Token {
    /// Returns the first token, or None at the end of the text. A string or comment that is not closed
    /// reaches to the end; Lua refuses it.
    fn first(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let (kind, length) = match bytes.first()? {
            b if is_word(b) => (Kind::Word, bytes.iter().take_while(|byte| is_word(byte)).count()),
            b'-' if bytes.starts_with(b"--") => (Kind::Quoted, comment(bytes)),
            b'[' => match long_bracket(bytes) {
                Some(length) => (Kind::Quoted, length),
                None => (Kind::Other, 1),
            },
            quote @ (b'"' | b'\'') => (Kind::Quoted, string(bytes, *quote)),
            _ => (Kind::Other, text.chars().next().map_or(1, char::len_utf8)),
        };
        Some(Self { kind, length })
    }
}

fn comment(bytes: &[u8]) -> usize {
    match long_bracket(&bytes[2..]) {
        Some(length) => length + 2,
        None => bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len()),
    }
}

/// The length of `[[…]]`, `[=[…]=]`, … if one begins here.
fn long_bracket(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|byte| **byte == b'=').count();
    if rest.get(level) != Some(&b'[') {
        return None;
    }
    let mut end = vec![b'='; level + 2];
    end[0] = b']';
    end[level + 1] = b']';
    let begin = level + 2;
    let found = bytes[begin..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(bytes.len(), |at| begin + at + end.len()))
}

fn string(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            // Lua takes a carriage return and a line feed together for one line end.
            b'\\' if matches!(bytes.get(at + 1..at + 3), Some(b"\r\n" | b"\n\r")) => 3,
            b'\\' => 2,
            // A string that is not closed on its line is not Lua. What follows is treated as code.
            b'\n' | b'\r' => return at,
            byte if *byte == quote => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_and_function_counts() {
        for (text, expected) in [
            ("while true do end", "while true do switchboard_step(); end"),
            ("for i=1,3 do(f or g)() end", "for i=1,3 do switchboard_step();(f or g)() end"),
            ("repeat x() until y", "repeat switchboard_step(); x() until y"),
            (
                "local function f(a, ...) return f(a) end",
                "local function f(a, ...) switchboard_step(); return f(a) end",
            ),
            ("t.sort(x,function() return end)", "t.sort(x,function() switchboard_step(); return end)"),
            // Text in strings and comments stays unchanged, and what looks like their end is not.
            (
                "x = 'do' .. \"\\\" do\" .. [[ do ]] .. [==[ ]] do ]==]",
                "x = 'do' .. \"\\\" do\" .. [[ do ]] .. [==[ ]] do ]==]",
            ),
            ("-- do\nundo = a[b[1]]", "-- do\nundo = a[b[1]]"),
            ("--[[ do\n do ]] do end", "--[[ do\n do ]] do switchboard_step(); end"),
            ("--[==x\ndo end", "--[==x\ndo switchboard_step(); end"),
            ("-- x\rdo end", "-- x\rdo switchboard_step(); end"),
            ("x = 'đường' do end", "x = 'đường' do switchboard_step(); end"),
            ("x = 'a\\\ndo' do end", "x = 'a\\\ndo' do switchboard_step(); end"),
            // A loop must not hide behind what only looks like the end of the string.
            (
                "x = 'a\\\r\nb' while true do end --'",
                "x = 'a\\\r\nb' while true do switchboard_step(); end --'",
            ),
            ("x = 'a\\\n\rb' do end", "x = 'a\\\n\rb' do switchboard_step(); end"),
            ("switchboard_step = nil", "switchboard_step is a reserved name = nil"),
            ("x = [[ do", "x = [[ do"),
            ("x = 'do", "x = 'do"),
            ("x = 'do\\", "x = 'do\\"),
        ] {
            assert_eq!(counted(text), expected);
            assert_eq!(counted(text).lines().count(), text.lines().count());
        }
    }
}
