//! What keeps a script inside its release's grants. A script is Lua, and Lua may make up any key while it runs; the keys
//! that its caller declares say nothing about that. So its text is put behind a prelude that lends it another `redis`:
//! one that looks at every command and every key as they come, with the same table as commands from outside. Pure.
//!
//! A user of Redis's own access lists would do the same in the server, but takes a connection for each handler and rights
//! that a hosted Redis does not give.

use std::fmt::Write;

use super::keys::{Keyed, commands};
use crate::manifest::Pattern;

/// The checks, with the script behind them. Only commands whose names the text holds are known to the prelude: it runs at
/// every call, and a table of all would cost more than most scripts do.
pub(super) fn guarded(text: &str, grants: &[Pattern]) -> String {
    let upper = text.to_ascii_uppercase();
    let mut keyed = String::new();
    for (name, how) in commands().filter(|(name, _)| upper.contains(name)) {
        let _ = write!(keyed, "{name}={},", number(how));
    }
    let (mut prefixes, mut exact) = (String::new(), String::new());
    for grant in grants {
        match grant.as_str().strip_suffix('*') {
            Some(prefix) => {
                let _ = write!(prefixes, "{},", quoted(prefix));
            }
            None => {
                let _ = write!(exact, "[{}]=true,", quoted(grant.as_str()));
            }
        }
    }
    // In one line: a script's complaint names the line of its own text.
    let prelude: Vec<&str> = PRELUDE.lines().map(str::trim).collect();
    let prelude = prelude.join(" ");
    format!("{prelude}(redis,{{{keyed}}},{{{prefixes}}},{{{exact}}}) {CLOSED} {text}")
}

fn number(keyed: Keyed) -> u8 {
    match keyed {
        Keyed::No => 0,
        Keyed::First => 1,
        Keyed::FirstTwo => 2,
        Keyed::All => 3,
        Keyed::Pairs => 4,
        Keyed::Counted => 5,
        Keyed::FirstAndCounted => 6,
        Keyed::Streams => 7,
    }
}

/// Every byte that is not plainly itself in Lua is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'-' | b'{' | b'}' | b'.' => {
                quoted.push(byte.into());
            }
            other => {
                let _ = write!(quoted, "\\{other:03}");
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whatever leads back to the real `redis`.
const CLOSED: &str =
    "local server,_G,getfenv,setfenv,load,loadstring,loadfile,dofile,require,module,package,debug=redis;";

const PRELUDE: &str = r##"
local redis=(function(real,keyed,prefixes,exact)
local sub,upper,select,tonumber,tostring,error=string.sub,string.upper,select,tonumber,tostring,error
local function may(key)
if type(key)=="number" then key=tostring(key) end
if exact[key] then return end
for i=1,#prefixes do local prefix=prefixes[i] if sub(key,1,#prefix)==prefix then return end end
error("the key `"..key.."` is not granted",0)
end
local function look(name,...)
local how=keyed[upper(tostring(name))]
if not how then error("`"..tostring(name).."` is not a command for scripts of handlers",0) end
local words,count={...},select("#",...)
local first,last,step=1,0,1
if how==1 then last=1
elseif how==2 then last=2
elseif how==3 then last=count
elseif how==4 then last=count step=2
elseif how==5 then first=2 last=1+(tonumber(words[1]) or count)
elseif how==6 then may(words[1] or "") first=3 last=2+(tonumber(words[2]) or count)
elseif how==7 then
local at=1 while at<=count and upper(tostring(words[at]))~="STREAMS" do at=at+1 end
first=at+1 last=at+(count-at)/2
end
if last>count then error("`"..tostring(name).."` does not have its keys where they belong",0) end
for i=first,last,step do may(words[i]) end
end
return {
call=function(...) look(...) return real.call(...) end,
pcall=function(...) look(...) return real.pcall(...) end,
error_reply=real.error_reply,status_reply=real.status_reply,sha1hex=real.sha1hex,
log=function() end,LOG_DEBUG=0,LOG_VERBOSE=1,LOG_NOTICE=2,LOG_WARNING=3,
replicate_commands=function() return true end
}
end)
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_its_lines_and_knows_the_commands_that_it_names() {
        let grants: Vec<Pattern> =
            ["rate:*", "it's"].map(|text| serde_json::from_value(text.into()).unwrap()).into();
        let text = "-- a counter\nreturn redis.call('incr', KEYS[1])";
        let guarded = guarded(text, &grants);
        assert!(guarded.ends_with(text), "{guarded}");
        assert_eq!(guarded.lines().count(), 2);
        assert!(guarded.contains("INCR=1,") && !guarded.contains("HSET="), "{guarded}");
        assert!(guarded.contains(r#"{"rate:",},{["it\039s"]=true,}"#), "{guarded}");
    }
}
